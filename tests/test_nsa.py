"""NSA's network, training, detector and commands: shapes, resume to the same bytes, save and load, bad input."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import write_category

from pnilib import PNI, PNIConfig, evaluate
from pnilib.apps import cli
from pnilib.config.geometry import Geometry
from pnilib.errors import PNIError
from pnilib.nsa import training
from pnilib.nsa.config import ALL_TASKS, NSAConfig
from pnilib.nsa.detector import NSA, rules_of
from pnilib.nsa.network import NSANet, TransposedBlock
from pnilib.nsa.runs import fit_or_load
from pnilib.nsa.samples import Samples, augmented, load_images, loaded_size
from pnilib.nsa.training import learning_rate, network_input, predicted, train_network
from pnilib.synthesis.nsa_tasks import CLASSES, ClassRules

QUICK = NSAConfig(size=64, epochs=2, batch=4, rules="mvtec/carpet")
TEXTURE = CLASSES["mvtec/carpet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_category(tmp_path_factory.mktemp("nsa"), n_train=6)


@pytest.fixture(scope="module")
def fitted(data):
    return NSA(QUICK).fit(data.train)


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def pni(*words):
    before, sys.argv = sys.argv, ["pni", *map(str, words)]
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


# -- network -------------------------------------------------------------------------------------


def test_network_shapes_and_encoder():
    network = NSANet().eval()
    for side in (64, 96, 224):
        assert network(torch.zeros(1, 3, side, side)).shape == (1, 1, side, side)
    from torchvision.models import resnet18

    wanted = {name: tensor.shape for name, tensor in resnet18().state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in network.encoder.state_dict().items()} == wanted
    assert TransposedBlock(8, 4, 2)(torch.zeros(2, 8, 5, 7)).shape == (2, 4, 10, 14)
    assert [type(part).__name__ for part in network.decoder].count("TransposedBlock") == 6
    blocks = [m for m in network.decoder if isinstance(m, TransposedBlock)]
    assert [block.path[1].num_features for block in blocks] == [64, 64, 32, 32, 16, 16]


def test_learning_rate_by_hand():
    config = NSAConfig()
    assert learning_rate(config, 0, 320) == 1e-3 and learning_rate(config, 320, 320) == pytest.approx(1e-6)
    assert learning_rate(config, 160, 320) == pytest.approx((1e-3 + 1e-6) / 2)


def test_input_and_output_by_hand():
    white = network_input(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    expected = [(1 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert white[0, :, 0, 0].tolist() == pytest.approx(expected)
    assert predicted(torch.tensor([0.0, -3.0]), "bce")[0] == 0.5
    assert predicted(torch.tensor([-3.0, 2.0]), "mse").tolist() == [0, 2]


# -- samples -------------------------------------------------------------------------------------


def test_sizes_of_the_published_run():
    config, screw = NSAConfig(), CLASSES["mvtec/screw"]
    assert (loaded_size(config, screw), config.crop(screw)) == (256, 224)
    assert (loaded_size(config, TEXTURE), config.crop(TEXTURE)) == (264, 256)
    assert config.n_epochs("mvtec/screw") == 560 and config.n_epochs("mvtec/pill") == 320
    corners = set()
    y, x = np.mgrid[:256, :256].astype(np.uint8)
    image = np.stack([y, x, y], axis=2)
    for seed in range(300):
        crop = augmented(image, config, ClassRules(), np.random.default_rng(seed))
        assert crop.shape == (224, 224, 3)
        corners.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert {min(c) for c in zip(*corners, strict=True)} == {13} and {max(c) for c in zip(*corners, strict=True)} == {19}


def test_textures_are_flipped_and_shifted(data):
    images = load_images(data.train, QUICK, TEXTURE)
    assert images[0].shape == (66, 66, 3) and images[0].dtype == np.uint8
    seen = {augmented(images[0], QUICK, TEXTURE, np.random.default_rng(k)).tobytes() for k in range(60)}
    assert len(seen) == 18, "3 x 3 crops of 64 in 66, flipped or not"


def test_samples_depend_on_seed_epoch_and_index_alone(data):
    images = load_images(data.train, QUICK, TEXTURE)
    first = Samples(images, QUICK, TEXTURE, 3)
    assert torch.equal(first[2][0], Samples(images, QUICK, TEXTURE, 3)[2][0])
    assert not torch.equal(first[2][0], Samples(images, QUICK, TEXTURE, 4)[2][0])
    assert not torch.equal(first[2][0], Samples(images, QUICK.replace(seed=1), TEXTURE, 3)[2][0])
    one = Samples(images[:1], QUICK, TEXTURE, 0)
    assert one[0][0].shape == (3, 64, 64) and one[0][1].shape == (1, 64, 64)


# -- training ------------------------------------------------------------------------------------


def test_it_learns(data):
    """Twenty passes over six images: the loss falls below three quarters of its start."""
    model = NSA(QUICK.replace(epochs=20, batch=3)).fit(data.train)
    losses = [row["loss"] for row in model.history]
    assert len(losses) == 20 and np.mean(losses[-4:]) < 0.75 * losses[0]


def test_continuous_labels_are_grey_levels(data):
    model = NSA(QUICK.replace(task="nsa-continuous")).fit(data.train)
    maps = model.predict(data.test).maps
    assert (maps >= 0).all() and np.isfinite(maps).all() and (maps == 0).any()
    assert model.map_limits() == (0, 14) and NSA(QUICK).map_limits() == (0, 1), "twice carpet's midpoint of 7"


def test_a_killed_training_resumes_to_the_same_bytes(data, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    config, whole = QUICK.replace(epochs=4), NSA(QUICK.replace(epochs=4)).fit(data.train)

    def kill(epoch, model, images):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NSA(config).fit(data.train, checkpoint=tmp_path / "c", after_epoch=kill)
    resumed = NSA(config).fit(data.train, checkpoint=tmp_path / "c")
    assert same(tensors(resumed), tensors(whole)) and resumed.history == whole.history
    assert not same(tensors(whole), tensors(fitted))
    with pytest.raises(PNIError, match="checkpoint of other settings or images: delete it"):
        NSA(config.replace(seed=1)).fit(data.train, checkpoint=tmp_path / "c")


def test_workers_change_nothing(data, fitted):
    assert same(tensors(NSA(QUICK).fit(data.train, workers=2)), tensors(fitted))


def test_a_loss_that_is_not_finite_is_named(data, monkeypatch):
    images = load_images(data.train, QUICK, TEXTURE)
    monkeypatch.setattr(NSANet, "forward", lambda self, x: x[:, :1] * self.bottleneck[0].bias.sum() * math.inf)
    with pytest.raises(PNIError, match="the loss is not finite in epoch 1: lower the learning rate"):
        train_network(images, QUICK, TEXTURE, 2)


def test_a_last_batch_of_one_joins_the_one_before(data):
    model = NSA(QUICK.replace(batch=5, epochs=1)).fit(data.train)
    assert np.isfinite(model.history[0]["loss"])


# -- detector ------------------------------------------------------------------------------------


def test_save_load_predict(data, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded, before = NSA.load(tmp_path / "model"), fitted.predict(data.test)
    after = loaded.predict(data.test, batch=3)
    assert np.allclose(before.maps, after.maps, atol=1e-5) and loaded.fingerprint() == fitted.fingerprint()
    assert before.image_scores == pytest.approx(before.maps.mean(axis=(1, 2)), rel=1e-4)
    assert (loaded.rules_name, loaded.config, loaded.history) == (fitted.rules_name, fitted.config, fitted.history)
    assert loaded.predict(data.test).maps.tobytes() == before.maps.tobytes()
    result = evaluate(before, data.test)
    assert result.n_defective == 2 and "no normal-only threshold" in " ".join(result.notes)
    (tmp_path / "model/decoder.safetensors").write_bytes(b"x")
    with pytest.raises(PNIError, match=r"decoder.safetensors has 1 bytes"):
        NSA.load(tmp_path / "model")


def test_an_objects_map_is_zero_around_its_crop(data):
    model = NSA(QUICK.replace(size=128, rules="mvtec/cable", epochs=1)).fit(data.train)
    maps = model.predict(data.test).maps
    assert (maps[:, :16] == 0).all() and (maps[:, :, -16:] == 0).all() and (maps[:, 16:-16, 16:-16] > 0).all()
    scores = model.predict(data.test).image_scores
    assert scores == pytest.approx(maps[:, 16:-16, 16:-16].mean(axis=(1, 2)), rel=1e-4), "of the crop's area"
    model.config = model.config.replace(image_score="max")
    assert model.predict(data.test).image_scores == pytest.approx(maps.max(axis=(1, 2)))


def test_rules_are_named_known_or_measured(data):
    assert rules_of(NSAConfig(), data.train, "mvtec", "screw")[0] == "mvtec/screw"
    name, rules = rules_of(NSAConfig(size=64), data.train, "folder", "mine")
    assert name == "measured" and rules.texture
    assert rules_of(QUICK, data.train, "mvtec", "screw") == ("mvtec/carpet", TEXTURE)


def test_its_encoder_is_a_backbone_of_pni(data, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    config = PNIConfig.profile("smoke").replace(
        backbone="resnet18", weights=str(tmp_path / "model/encoder.safetensors"), setting="A"
    )
    prediction = PNI(config).fit(data.train).predict(data.test)
    assert np.isfinite(prediction.image_scores).all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(size=100), "size=100: must be a multiple of 32: choose 96"),
        (dict(size=32), "size=32 is not allowed: 64"),
        (dict(task="nsa"), "task='nsa' is not allowed: cutpaste"),
        (dict(rules="mvtec/screws"), "rules=mvtec/screws: unknown: choose auto or one of mvtec/bottle"),
        (dict(batch=0), "batch=0 is not allowed"),
        (dict(lr=math.nan), "lr=nan is not allowed"),
        (dict(precision="fp16"), "precision='fp16' is not allowed: fp32"),
    ],
)
def test_bad_settings(wrong, said):
    with pytest.raises(PNIError, match=said):
        NSAConfig(**wrong)


def test_every_task_has_its_loss():
    assert {task.loss for task in ALL_TASKS.values()} == {"bce", "mse"} and len(ALL_TASKS) == 10


def test_not_fitted_not_nsa_not_refined(data, fitted, tmp_path):
    for call in (lambda: NSA().predict(data.test), lambda: NSA().save(tmp_path), lambda: NSA().fingerprint()):
        with pytest.raises(PNIError, match="the model is not fitted"):
            call()
    with pytest.raises(PNIError, match="no refinement network"):
        fitted.predict(data.test, refined=True)
    model = PNI(PNIConfig.profile("smoke").replace(backbone="scattering", aggregation="pool")).fit(data.train)
    model.save(tmp_path / "pni")
    with pytest.raises(PNIError, match=r"not a fitted NSA model: give the folder that `pni nsa fit` wrote"):
        NSA.load(tmp_path / "pni")


# -- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    words = ["--size", 64, "--epochs", 2, "--batch", 4, "--quiet"]
    assert pni("nsa", "fit", "-d", "mvtec", "-r", data.root, "-o", out, *words) == 0
    return out


def test_fit_leaves_what_it_says(run):
    folder = run / "part"
    record = json.loads((folder / "run.json").read_text())
    assert record["kind"] == "nsa" and record["rules"] == "measured" and record["n_train"] == 6
    assert (folder / "training/history.csv").read_text().startswith("epoch,loss,lost\n1,")
    for picture in ("epoch_0001.png", "epoch_0002.png"):
        with Image.open(folder / "training" / picture) as image:
            assert image.width > 600
    assert not (folder / "work").exists()


def test_the_same_fit_loads_and_another_is_refused(run, data, capsys):
    before = (run / "part/run.json").read_bytes()
    words = ["nsa", "fit", "-d", "mvtec", "-r", data.root, "-o", run, "--size", 64, "--batch", 4, "--quiet"]
    assert pni(*words, "--epochs", 2) == 0 and (run / "part/run.json").read_bytes() == before
    capsys.readouterr()
    assert pni(*words, "--epochs", 3) == 2
    assert "holds a model of epochs=2 (now 3): choose another output folder" in capsys.readouterr().err


def test_evaluate_and_score(run, data, tmp_path, capsys):
    assert pni("nsa", "evaluate", run, "--quiet") == 0
    shown = capsys.readouterr().out
    assert "I-AUROC" in shown and "no normal-only threshold: NSA" in shown
    assert (run / "metrics.csv").exists() and (run / "part/evaluation/pictures.png").exists()
    assert pni("nsa", "evaluate", run / "part", "--image-score", "max", "--quiet", "--json") == 0
    assert (run / "part/evaluation-image_score=max/scores.csv").exists()
    out = tmp_path / "scored"
    assert pni("nsa", "score", run, data.root / "part/test", "-o", out, "--quiet") == 0
    assert len((out / "scores.csv").read_text().splitlines()) == 1 + 4
    assert len(list((out / "heatmaps").rglob("*.png"))) == 4


def test_odd_images_and_one_of_them(tmp_path, capsys):
    """Gray, 16-bit and small ones, and one alone, whose patches come from itself."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 65536, (40, 50), dtype=np.uint16)
    Image.fromarray(noise).save(folder / "deep.png")
    words = ["nsa", "fit", "-d", "folder", "-r", folder, "--size", 64, "--epochs", 1, "--quiet"]
    assert pni(*words, "-o", tmp_path / "one") == 0
    assert "one training image: patches come from itself" in capsys.readouterr().err
    Image.fromarray((noise >> 8).astype(np.uint8)).save(folder / "gray.png")
    assert pni(*words, "-o", tmp_path / "two") == 0
    (folder / "broken.png").write_bytes((folder / "gray.png").read_bytes()[:200])
    capsys.readouterr()
    assert pni(*words, "-o", tmp_path / "three") == 2
    fault = capsys.readouterr().err.strip().splitlines()[-1]
    assert fault.startswith("error: ") and "broken.png" in fault


def test_images_without_foreground_are_given_up(tmp_path, capsys):
    folder = tmp_path / "black"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (i, i, i)).save(folder / f"{i}.png")
    assert pni("nsa", "fit", "-d", "folder", "-r", folder, "-o", tmp_path / "o", "--size", 64, "--quiet") == 2
    fault = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no patch changed any of the first 52 samples" in fault and "--rules" in fault


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", 100], "multiple of 32"),
        (["--task", "nsa-soft"], "task='nsa-soft' is not allowed"),
        (["--workers", -1], "--workers -1: give 0 to"),
        (["--rules", "demo"], "rules=demo: unknown"),
    ],
)
def test_bad_words(data, tmp_path, capsys, words, said):
    assert pni("nsa", "fit", "-d", "mvtec", "-r", data.root, "-o", tmp_path, "--quiet", *words) == 2
    fault = capsys.readouterr().err.strip().splitlines()[-1]
    assert fault.startswith("error: ") and said in fault


def test_other_commands_refuse_an_nsa_run_in_a_line(run, data, tmp_path, capsys):
    fit = ["fit", "-d", "mvtec", "-r", data.root, "-o", run, "--profile", "smoke"]
    score = ["score", run / "part", data.root / "part/test", "-o", tmp_path]
    for words in (["evaluate", run], ["refine", run], ["explore", run], fit, score):
        assert pni(*words) == 2
        fault = capsys.readouterr().err.strip().splitlines()[-1]
        assert "is a run of `pni nsa fit`: use `pni nsa evaluate` and `pni nsa score`" in fault, words


def test_strips_do_not_change_the_training(data, fitted, tmp_path):
    from pnilib.apps.nsa_pictures import draw_progress

    model = fit_or_load(data, QUICK, tmp_path / "run", draw=draw_progress)
    assert same(tensors(model), tensors(fitted)) and len(list((tmp_path / "run/training").glob("*.png"))) == 2
    assert Geometry(64, 64) == QUICK.geometry and Path(tmp_path / "run/model").exists()
