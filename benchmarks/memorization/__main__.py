"""Run the experiment: plant copies, clean, train, generate, count.

    PYTHONPATH=benchmarks python -m memorization --photos DIR --out OUT [--arm ARM]... [--seed N]... [--results DIR]
    PYTHONPATH=benchmarks python -m memorization --plan large --photos DIR --more DIR --out OUT [--arm ARM]...
    PYTHONPATH=benchmarks python -m memorization --plan kinds|few --photos DIR --out OUT [--seed N]... [--results DIR]

Without ``--arm`` the quick preset runs; the plans ``kinds`` and ``few`` have no arm but raw. What is there already is
not computed again; ``--tables`` computes nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from memorization import kinds
from memorization.arms import ARMS, QUICK, clean
from memorization.experiment import Job, one_thread, run_job
from memorization.page import write_page
from memorization.photos import made_photos, read_photos
from memorization.planted import Plan, photos_needed, write_planted
from memorization.plots import write_plots
from memorization.record import claim, digest_of_photos
from memorization.settings import Training
from memorization.summary import as_markdown, read_results, summarise

TINY = Plan(((1, 20), (2, 5), (10, 1)), ((1, 5), (3, 1)))
LARGE = Plan(
    ((4, 1000), (6, 400), (8, 200), (8, 100), (8, 50), (16, 10), (20, 2), (1600, 1)), ((4, 100), (44, 1)), beside=9000
)
SIDES, EPOCHS = {"large": 32}, {"large": 20}
"""Pixels of a side and how often each row of raw is seen, by plan; 16 and 64 in the others."""


def main() -> None:
    options = _arguments()
    results: Path = options.results or options.out / "results"
    if not options.tables:
        claim(options.out, _experiment(options))
        jobs = [job for seed in options.seed or [0] for job in _jobs(options, seed, results)]
        _run(jobs, options.workers)
    found = read_results(results)
    if options.plan in kinds.PLANS:
        summary, text = kinds.summarise(found), kinds.as_markdown
    else:
        summary, text = summarise(found), as_markdown
        write_plots(summary, options.plots or results)
    (results / "summary.json").write_text(json.dumps({"summary": summary}, indent=1, ensure_ascii=False) + "\n")
    print(text(summary))
    if summary["void"]:
        print("VOID: what occurs most often is extracted in less than half of the samples, or the floor is above 1 %")
    if (options.out / "data" / "truth.csv").exists() and (options.out / "arms" / "samples").exists():
        print(f"samples beside their originals in {write_page(options.out, SIDES.get(options.plan, 16))}")


def _jobs(options: argparse.Namespace, seed: int, results: Path) -> list[Job]:
    """Plant, clean, and say what is to be trained with a seed."""
    out: Path = options.out
    plan = _plan(options, seed)
    if options.plan in kinds.PLANS:  # each seed has photos of its own
        data, arms = out / f"data-{seed}", ["raw"]
    else:
        data, arms = out / "data", options.arm or QUICK
    _plant(options.photos, options.more, plan, data)
    for arm in arms:  # one after another: each takes all processors
        clean(arm, data, out / "arms")
    said = shlex.join(["python", "-m", "memorization", *_public(sys.argv[1:])])
    training = Training(_steps(options))
    side = SIDES.get(options.plan, 16)
    return [Job(arm, seed, data, out / "arms", results, training, side, command=said) for arm in arms]


def _plan(options: argparse.Namespace, seed: int) -> Plan:
    if options.plan in kinds.PLANS:
        return kinds.kinds_plan(options.plan, seed)
    return TINY if options.tiny else LARGE if options.plan == "large" else Plan()


def _steps(options: argparse.Namespace) -> int:
    return options.steps or (
        40 if options.tiny else _plan(options, 0).rows * EPOCHS.get(options.plan, 64) // Training().batch
    )


def _experiment(options: argparse.Namespace) -> dict[str, object]:
    """What decides about the results besides arm and seed, which have files of their own."""
    more = {} if options.more is None else {"more": digest_of_photos(options.more)}
    photos = digest_of_photos(options.photos)
    return {"plan": options.plan, "photos": photos, "steps": _steps(options), "tiny": options.tiny, **more}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--plan", choices=("copies", "large", *kinds.PLANS), default="copies", help="README.md, large.md or kinds.md"
    )
    parser.add_argument("--photos", type=Path, help="folder of JPEG files with captions.txt or .txt files beside them")
    parser.add_argument("--more", type=Path, help="folder of further JPEG files, for the plan large")
    parser.add_argument("--out", type=Path, default=Path("build/memorization"), help="folder for everything")
    parser.add_argument("--results", type=Path, help="folder for the JSON files (OUT/results)")
    parser.add_argument("--plots", type=Path, help="folder for the plots (that of the JSON files)")
    parser.add_argument("--arm", action="append", choices=ARMS, help="arm to run (the quick preset)")
    parser.add_argument("--seed", action="append", type=int, help="seed to run (0)")
    parser.add_argument("--steps", type=int, help="steps of training (as many as rows)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--tables", action="store_true", help="only make the tables and plots again")
    parser.add_argument("--tiny", action="store_true", help="a handful of images, to see that everything runs")
    return parser.parse_args()


def _public(arguments: list[str]) -> list[str]:
    """The command line without the folders of this machine."""
    return [f"…/{Path(argument).name}" if argument.startswith("/") else argument for argument in arguments]


def _plant(folder: Path | None, beside: Path | None, plan: Plan, data: Path) -> None:
    if (data / "truth.csv").exists():
        return
    needed, more = photos_needed(plan), []
    if folder is None:
        print(
            "no photos given: made pictures take their place; for photos, name a folder: make memorization PHOTOS=DIR"
        )
        photos = made_photos(needed + plan.beside)
        photos, more = photos[:needed], photos[needed:]
    else:
        try:
            photos = read_photos(folder)
            more = read_photos(beside, named=True) if beside else []
        except ValueError as error:
            sys.exit(str(error))
    if len(photos) < needed:
        captions = "captions.txt, or .txt beside"
        sys.exit(f"{folder} holds {len(photos):,} JPEG files with captions ({captions}); {needed:,} are needed")
    if len(more) < plan.beside:
        sys.exit(f"--more names a folder of {plan.beside:,} JPEG files or more that are not in --photos")
    write_planted(photos, plan, data, more)


def _run(jobs: list[Job], workers: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, one_thread) as pool:
        for done in as_completed([pool.submit(run_job, job) for job in jobs]):
            print(done.result(), flush=True)


if __name__ == "__main__":
    main()
