"""How many edited copies verification accepts, what else it accepts, and what it costs.

python benchmarks/verify.py                       # edits of scikit-image's photos
python benchmarks/verify.py --laion FOLDER        # and a data set with shards/ and truth.csv (url, origin, edit)
python benchmarks/verify.py --photos PHOTOS.tar   # edits of your own photos (a tar or a folder)
python benchmarks/verify.py --shots FOLDER...     # and different shots of one scene, a folder each
python benchmarks/verify.py --nearness            # and how close hash and embedding of the other pairs come
python benchmarks/verify.py --against-sift 250    # instead: the steps against SIFT alone, with 250 deep crops
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from dedupkit.embedding import load_embedder
from dedupkit.hashing import pdq
from dedupkit.images import ImageError, decode_luma, luma_of
from dedupkit.neighbors import dihedral_distance
from dedupkit.sources import find_shards
from dedupkit.verification import pair
from dedupkit.verification.pair import Features, Verification, local_features, verify_pair

SHIPPED = ["astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "moon", "retina", "rocket"]
Labelled = list[tuple[str, Features, Features]]
seconds: dict[str, list[float]] = {
    "features of an image": [],
    "SIFT features of an image": [],
    "copies": [],
    "other pairs": [],
    "copies that SIFT decides": [],
    "other pairs that SIFT decides": [],
}


def crop(image: Image.Image, share: float) -> Image.Image:
    """A window of that share of the area, right of the centre and below it."""
    width, height = image.size
    side = share**0.5
    left, top = 0.7 * (1 - side) * width, 0.6 * (1 - side) * height
    return image.crop((round(left), round(top), round(left + side * width), round(top + side * height)))


def stored(image: Image.Image, quality: int) -> Image.Image:
    """As it comes back from a JPEG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def captioned(image: Image.Image) -> Image.Image:
    """Two lines of white text on it, and a logo."""
    image = image.convert("RGB")
    draw, (width, height) = ImageDraw.Draw(image), image.size
    for place, text in ((0.02, "ONE DOES NOT SIMPLY"), (0.86, "TRAIN ON DUPLICATES")):
        draw.text((0.04 * width, place * height), text, fill="white", font_size=height // 10)
    draw.rectangle((0.8 * width, 0.45 * height, 0.95 * width, 0.6 * height), fill="red")
    return image


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image,
    "JPEG quality 30": lambda image: stored(image, 30),
    "JPEG quality 10": lambda image: stored(image, 10),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "96 pixels": lambda image: ImageOps.contain(image, (96, 96)),
    "square": lambda image: image.resize((256, 256)),
    "aspect 3:2": lambda image: image.resize((300, 200 * image.height // image.width)),
    "crop 80 %": lambda image: crop(image, 0.8),
    "crop 25 %": lambda image: crop(image, 0.25),
    "crop 60 %, mirrored": lambda image: ImageOps.mirror(crop(image, 0.6)),
    "mirrored": ImageOps.mirror,
    "flipped": ImageOps.flip,
    "rotated by 10": lambda image: image.rotate(10, Image.Resampling.BICUBIC),
    "rotated by 25": lambda image: image.rotate(25, Image.Resampling.BICUBIC),
    "turned by 90": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "border 15 %": lambda image: ImageOps.expand(image, round(0.15 * min(image.size)), "white"),
    "text and logo": captioned,
    "grey": lambda image: image.convert("L"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "all but mirrored": lambda image: stored(captioned(crop(image, 0.7).rotate(5, Image.Resampling.BICUBIC)), 40),
}


def features(image: Image.Image) -> Features:
    """Features of a decoded image, timed."""
    luma = luma_of(image, min_side=320)
    begin = time.process_time()
    result = local_features(luma.plane, size=(luma.width, luma.height))
    seconds["features of an image"].append(time.process_time() - begin)
    return result


def verified(a: Features, b: Features, kind: str) -> Verification:
    """The verdict, timed."""
    asked = len(_asked)
    begin = time.process_time()
    result = verify_pair(a, b)
    spent = time.process_time() - begin
    seconds[kind if len(_asked) == asked else f"{kind} that SIFT decides"].append(spent)
    return result


_asked: list[int] = []  # an entry for each pair that SIFT decided
_by_sift = pair.by_sift


def _timed(cv2: Any, a: Features, b: Features, *options: Any) -> Verification:
    """What corners and pixels leave open, noted; SIFT features are timed apart: they serve all pairs of an image."""
    _asked.append(1)
    for image in (a, b):
        if "_sift" not in image.__dict__:
            begin = time.process_time()
            _ = image.keypoints
            seconds["SIFT features of an image"].append(time.process_time() - begin)
    return _by_sift(cv2, a, b, *options)


pair.by_sift = _timed


def shipped_photos() -> Iterator[tuple[str, Image.Image]]:
    """What scikit-image installs."""
    from skimage import data

    for name in SHIPPED:
        image = Image.fromarray(getattr(data, name)())
        image.thumbnail((640, 640))
        yield name, image.convert("RGB")


def own_photos(path: str) -> Iterator[tuple[str, Image.Image]]:
    """The images of a tar or a folder."""
    for shard in find_shards(path):
        for sample in shard.read():
            if sample.image is not None:
                image = Image.open(io.BytesIO(sample.image)).convert("RGB")
                image.thumbnail((640, 640))
                yield sample.key, image


def planted(photos: list[tuple[str, Image.Image]]) -> tuple[Labelled, Labelled]:
    """Edited copies of every photo; and pairs that share something but are no copies."""
    plain = {name: features(image) for name, image in photos}
    copies = [(edit, features(make(image)), plain[name]) for edit, make in EDITS.items() for name, image in photos]
    others = [("different photos", plain[a], plain[b]) for a, b in itertools.combinations(plain, 2)][:2000]
    for (_, one), (_, two) in zip(photos, photos[1:] + photos[:1], strict=True):
        for kind, make in (("same template, other photo", templated), ("same page, other photo", paged)):
            others.append((kind, features(make(one)), features(make(two))))
        width, height = one.size
        halves = [one.crop((left, 0, left + width * 6 // 10, height)) for left in (0, width - width * 6 // 10)]
        others.append(("neighbouring windows, 33 % shared", features(halves[0]), features(halves[1])))
        others.append(("parallax of 2 % of the width", plain[_name(photos, one)], features(parallax(one, 0.02))))
    return copies, others


def _name(photos: list[tuple[str, Image.Image]], wanted: Image.Image) -> str:
    return next(name for name, image in photos if image is wanted)


def templated(photo: Image.Image) -> Image.Image:
    """A picture between two lines of the same text."""
    page = Image.new("RGB", (400, 480), "black")
    draw = ImageDraw.Draw(page)
    draw.text((20, 10), "WHEN THE LOSS GOES DOWN", fill="white", font_size=26)
    draw.text((20, 430), "BUT THE TEST SET WAS IN IT", fill="white", font_size=26)
    page.paste(photo.resize((360, 360)), (20, 55))
    return page


def paged(photo: Image.Image) -> Image.Image:
    """A page full of text with a picture that takes a quarter of it."""
    page = Image.new("RGB", (480, 480), "white")
    draw = ImageDraw.Draw(page)
    for line in range(20):
        draw.text(
            (10, 10 + 23 * line), f"{line * 7919 % 977} lines of the same text for all, {line}", "black", font_size=16
        )
    page.paste(photo.resize((240, 240)), (220, 120))
    return page


def parallax(photo: Image.Image, amplitude: float) -> Image.Image:
    """The scene from another place: every point shifted by a smooth random depth, up to that share of the width."""
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    depth = np.random.default_rng(width).random((6, 6)).astype(np.float32)
    shift = cv2.resize(depth, (width, height), interpolation=cv2.INTER_CUBIC) * amplitude * width
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return Image.fromarray(cv2.remap(pixels, x + shift, y + shift / 4, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))


def stereo() -> Labelled:
    """Two views of one motorcycle."""
    from skimage import data

    left, right = (Image.fromarray(view).convert("RGB") for view in data.stereo_motorcycle()[:2])
    return [("stereo pair", features(left), features(right))]


def shots(folder: str) -> Labelled:
    """Every image of a folder with the five that follow."""
    found = [features(image) for _, image in own_photos(folder)]
    return [("shots of one scene", a, b) for at, a in enumerate(found) for b in found[at + 1 : at + 6]]


def laion(folder: str, between_edits: int = 1000) -> tuple[Labelled, Labelled]:
    """Original and edit; edits of one photo; and every photo with the four most like it by their thumbnails."""
    with Path(folder, "truth.csv").open() as lines:
        truth = {row["url"]: row for row in csv.DictReader(lines)}
    groups: dict[str, list[tuple[str, Features]]] = defaultdict(list)
    for shard in find_shards(str(Path(folder, "shards"))):
        for sample in shard.read():
            if sample.image is None or sample.url is None:
                continue
            try:
                luma = decode_luma(sample.image, min_side=320)
            except ImageError:
                continue
            begin = time.process_time()
            found = local_features(luma.plane, size=(luma.width, luma.height))
            seconds["features of an image"].append(time.process_time() - begin)
            row = truth[sample.url]
            groups[row["origin"]].append((row["edit"], found))
    copies, between = [], []
    for members in groups.values():
        members.sort(key=lambda member: member[0] != "original")
        for (first, a), (second, b) in itertools.combinations(members, 2):
            (copies if first == "original" else between).append((second if first == "original" else "two edits", b, a))
    chosen = np.random.default_rng(0).permutation(len(between))[:between_edits]
    firsts = [members[0][1] for members in groups.values()]
    return copies + [between[at] for at in chosen], look_alikes(firsts, 4)


def look_alikes(images: list[Features], count: int) -> Labelled:
    """Each image with those nearest to it by a 16 x 16 thumbnail."""
    small = np.stack([cv2.resize(image.plane, (16, 16), interpolation=cv2.INTER_AREA).ravel() for image in images])
    vectors: NDArray[np.float64] = small - small.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, 1 : count + 1]
    pairs = {(min(a, b), max(a, b)) for a, row in enumerate(nearest.tolist()) for b in row}
    return [("look-alikes by thumbnail", images[a], images[b]) for a, b in sorted(pairs)]


def table(title: str, pairs: Labelled, kind: str, show: bool) -> int:
    """Print the share accepted per label; returns the number accepted."""
    print(f"\n{title:<38} {'pairs':>6} {'accepted':>9} {'share':>7}   lowest: inliers, agreement; largest deviation")
    results: dict[str, list[Verification]] = defaultdict(list)
    for label, a, b in pairs:
        results[label].append(verified(a, b, kind))
    for label, found in results.items():
        accepted = sum(result.verified for result in found)
        inliers, agreement = min(result.inliers for result in found), min(result.agreement for result in found)
        worst = max(result.deviation for result in found)
        share = accepted / len(found)
        print(f"{label:<38} {len(found):>6} {accepted:>9} {share:>7.3f}   {inliers:>4} {agreement:>6.2f} {worst:>6.2f}")
        for result in found if show else []:
            if result.verified != (kind == "copies"):
                print(
                    f"    {result.describe()} (inliers {result.inliers}, agreement {result.agreement:.2f}, "
                    f"deviation {result.deviation:.2f})"
                )
    return sum(result.verified for found in results.values() for result in found)


def deep_crops(photos: list[tuple[str, Image.Image]], count: int) -> Labelled:
    """Windows of a sixth to a third of the area, three of four turned, stretched or mirrored, and their photos."""
    draw, plain = np.random.default_rng(5), {name: features(image) for name, image in photos}
    pairs = []
    for number in range(count):
        name, photo = photos[number % len(photos)]
        side, left, top, angle = draw.choice([0.4, 0.5, 0.6]), *draw.random(2), draw.uniform(-15, 15)
        width, height = (side * length for length in photo.size)
        left, top = left * (photo.width - width), top * (photo.height - height)
        window = photo.crop((round(left), round(top), round(left + width), round(top + height)))
        if number % 4 == 1:
            window = window.rotate(angle, Image.Resampling.BICUBIC)
        elif number % 4 == 2:
            window = window.resize((256, 256))
        elif number % 4 == 3:
            window = ImageOps.mirror(window).resize((300, 220))
        quality = int(draw.choice([40, 70, 90]))
        pairs.append(("deep crops", features(stored(window, quality)), plain[name]))
    return pairs


def against_sift(title: str, pairs: Labelled) -> None:
    """Print what the steps decide beside SIFT alone, and the processor time of both, features once an image."""
    steps, alone, asked, both, only = 0.0, 0.0, 0, [0, 0], [0, 0]
    made: dict[int, float] = {}  # images whose SIFT features the steps needed, and the seconds
    for _, a, b in pairs:
        for image in (a, b):
            image.__dict__.pop("_sift", None)
    sift: dict[int, float] = {}
    for _, a, b in pairs:
        begin = time.process_time()
        found = pair._by_corners(cv2, a, b, 0.85)
        steps += time.process_time() - begin
        for image in (a, b):
            begin = time.process_time()
            if "_sift" not in image.__dict__:
                _ = image.keypoints
                sift[id(image)] = time.process_time() - begin
        begin = time.process_time()
        by_sift = _by_sift(cv2, a, b, 15, 0.85)
        spent = time.process_time() - begin
        alone += spent
        if found is None:
            asked += 1
            steps += spent
            made |= {id(image): sift[id(image)] for image in (a, b)}
        verdict = by_sift.verified if found is None else found.verified
        both[0] += verdict
        both[1] += by_sift.verified
        only[0] += verdict and not by_sift.verified
        only[1] += by_sift.verified and not verdict
    images = len({id(image) for _, a, b in pairs for image in (a, b)})
    corners = float(np.median(seconds["features of an image"])) * images
    steps, alone = steps + sum(made.values()) + corners, alone + sum(sift.values())
    print(
        f"{title:<14} {len(pairs):>6} pairs: accepted {both[0]} by steps, {both[1]} by SIFT alone; by steps only "
        f"{only[0]}, by SIFT only {only[1]}; SIFT asked for {asked}; {1000 * steps / len(pairs):.1f} and "
        f"{1000 * alone / len(pairs):.1f} ms a pair, {alone / steps:.1f} times less"
    )


def nearness(pairs: Labelled) -> None:
    """Print how close hash and embedding of pairs that are no copies come: what a threshold alone would take."""
    embedder = load_embedder("lite")
    images = {id(image): image for _, a, b in pairs for image in (a, b)}
    codes = {key: pdq(image.plane) for key, image in images.items()}
    planes = [embedder.preprocess(Image.fromarray(image.plane).convert("RGB")) for image in images.values()]
    encoded = [embedder.encode(np.stack(planes[at : at + 64])) for at in range(0, len(planes), 64)]
    vectors = dict(zip(images, np.concatenate(encoded).astype(np.float32), strict=True))
    cosines, distances = defaultdict(list), defaultdict(list)
    for label, a, b in pairs:
        one, two = id(a), id(b)
        norms = np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[two])
        cosines[label].append(float(vectors[one] @ vectors[two] / norms))
        if min(codes[one][1], codes[two][1]) >= 50:
            distances[label].append(int(dihedral_distance(codes[one][0][None], codes[two][0][None])[0]))
    print(f"\n{'how close they come, in grey':<38} {'pairs':>6}   lite: 95 % below, most like; PDQ: nearest")
    for label, found in cosines.items():
        nearest = min(distances[label], default=None)
        print(f"{label:<38} {len(found):>6}   {np.quantile(found, 0.95):.2f} {max(found):.2f}   {nearest}")


def main() -> int:
    """Run the benchmark; 1 if anything was accepted that is no copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--laion", help="a folder with shards/ and truth.csv")
    parser.add_argument("--photos", help="photos to edit instead of scikit-image's")
    parser.add_argument("--shots", nargs="*", default=[], help="folders of different shots of one scene")
    parser.add_argument("--show", action="store_true", help="print every wrong verdict")
    parser.add_argument("--nearness", action="store_true", help="and how close hash and embedding of other pairs come")
    parser.add_argument("--against-sift", type=int, metavar="N", help="the steps against SIFT alone, with N deep crops")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)

    photos = list(own_photos(arguments.photos) if arguments.photos else shipped_photos())
    copies, others = planted(photos)
    others += stereo()
    for folder in arguments.shots:
        others += shots(folder)
    if arguments.laion:
        more, look_alike = laion(arguments.laion)
        copies += [(f"laion_style, {label}", a, b) for label, a, b in sorted(more, key=lambda pair: pair[0])]
        others += look_alike
    if arguments.against_sift is not None:
        against_sift("copies", copies)
        against_sift("other pairs", others)
        against_sift("deep crops", deep_crops(photos, arguments.against_sift))
        return 0
    table("copies", copies, "copies", arguments.show)
    wrong = table("other pairs", others, "other pairs", arguments.show)
    if arguments.nearness:
        nearness(others)

    print(f"\nfalse accepts: {wrong} of {len(others)}; processor time in milliseconds:")
    print(f"{'':<38} {'number':>7} {'median':>7}")
    for what, times in seconds.items():
        if times:
            print(f"{what:<38} {len(times):>7} {1000 * float(np.median(times)):>7.1f}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
