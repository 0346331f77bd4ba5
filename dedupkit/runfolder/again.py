"""The command that makes a run, from what its ``run.json`` says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from dedupkit.runfolder.config import RunConfig

__all__ = ["command"]

_MOST = 12  # sources that are written out, of those that a shell's pattern may have made thousands


def command(config: RunConfig, out: str, *, expanded: bool = False, embed: Sequence[str] = ()) -> str:
    """The shell command that makes a run again.

    Args:
        config: What was asked of the run.
        out: The run folder, as it is to be written.
        expanded: Whether the rule is spelled out, with the condition on captions, and all sources are; else the command
            goes on with the run, and says of very many sources the first alone.
        embed: Specifications of further embedders.
    """
    earlier = [reference.name for reference in config.references if reference.role == "earlier"]
    words = ["dedupkit", *(["update", earlier[-1]] if earlier else ["run"])]
    few = expanded or len(config.sources) <= _MOST
    sources = shlex.join(config.sources) if few else shlex.quote(config.sources[0]) + " …"
    options = ["--out", out]
    against = [reference.name for reference in config.references if reference.role == "against"]
    for name in against:
        options += ["--against", name]
    options += ["--no-against"] if earlier and not against else []  # an update takes over what is not given
    paired = expanded and config.captions.startswith("pair")  # the rule has the condition on captions
    own = config.against_named is False and not paired
    options += ["--against-rule", config.against_rule] if config.against_rule and not own else []
    options += ["--rule", config.rule_expanded if expanded else config.rule, "--keep", config.keep]
    for spec in (*config.embedders.values(), *embed):
        options += ["--embed", spec]
    for name in config.hashes if not earlier else ():  # an update takes those of the run that it updates
        options += ["--hash", name]
    captions = "ignore" if paired else config.captions
    if captions != "ignore" or earlier:
        options += ["--captions", captions]
    if config.templates != "keep" and not earlier:
        options += ["--templates", config.templates]
    if config.target_recall is not None and not earlier:
        options += ["--target-recall", repr(config.target_recall)]
    if config.compute_missing:
        options += ["--compute-missing"]
    return f"{shlex.join(words)} {sources} {shlex.join([*options, '--seed', str(config.seed)])}"
