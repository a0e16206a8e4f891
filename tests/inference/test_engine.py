"""The engine gives the logits of the network, on any device, in batches and views."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from kinema.errors import DeviceError
from kinema.inference.engine import Engine, choose_device
from kinema.models.binding import by_head


def clips(batch, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, 8, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def engine(make_trained_model, tiny_ctn):
    return make_trained_model(tiny_ctn()).engine(torch.device("cpu"))


def test_logits_are_those_of_the_network_in_evaluation(make_trained_model, tiny_ctn):
    model = tiny_ctn()
    trained = make_trained_model(model)
    given = clips(3)
    logits = trained.engine(torch.device("cpu")).logits({"rgb": given})["label"]
    with torch.inference_mode():
        plain = copy.deepcopy(model).eval()((given.float() / 255 - 0.5) / 0.5)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, plain, rtol=1e-5, atol=1e-5)


def test_the_model_that_trains_is_left_as_it_is(make_trained_model, tiny_ctn):
    model = tiny_ctn().train()
    before = copy.deepcopy(model.state_dict())
    engine = make_trained_model(model).engine(torch.device("cpu"))
    engine.logits({"rgb": clips(2)})
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_copy_is_frozen_at_the_moment_it_is_made(make_trained_model, tiny_ctn):
    model = tiny_ctn().train()
    engine = make_trained_model(model).engine(torch.device("cpu"))
    before = engine.logits({"rgb": clips(2)})["label"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(clips(2).float())  # moves BatchNorm's statistics
    assert torch.equal(engine.logits({"rgb": clips(2)})["label"], before)
    assert not any(module.training for module in engine.model.modules())


def test_dropout_is_silent(make_trained_model, tiny_ctn):
    engine = make_trained_model(tiny_ctn(dropout=0.5, drop_path=0.5).train()).engine(torch.device("cpu"))
    assert torch.equal(*(engine.logits({"rgb": clips(2)})["label"] for _ in range(2)))


def test_equal_batches_give_equal_logits(engine, make_trained_model, tiny_ctn):
    other = make_trained_model(tiny_ctn()).engine(torch.device("cpu"))
    first = engine.logits({"rgb": clips(4)})["label"]
    assert torch.equal(engine.logits({"rgb": clips(4)})["label"], first)
    assert torch.equal(other.logits({"rgb": clips(4)})["label"], first)


def test_other_batch_sizes_agree_to_the_fifth_digit(engine):
    together = engine.logits({"rgb": clips(5)})["label"]
    for size in (1, 2, 3):
        parts = torch.cat([engine.logits({"rgb": part})["label"] for part in clips(5).split(size)])
        torch.testing.assert_close(parts, together, rtol=0, atol=1e-5)
    assert together.std(0).min() > 1e-4


def test_half_precision_answers_in_single(make_trained_model, tiny_ctn):
    half, single = (
        make_trained_model(tiny_ctn(), precision=precision)
        .engine(torch.device("cpu"))
        .logits({"rgb": clips(4)})["label"]
        for precision in ("bfloat16", "float32")
    )
    assert half.dtype == torch.float32
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.1)


def test_several_task_heads_answer_by_name(make_trained_model, tiny_ctn):
    classes = {"verb": ("a", "b"), "noun": ("c", "d", "e", "f")}
    engine = make_trained_model(tiny_ctn({"verb": 2, "noun": 4}), classes=classes).engine(torch.device("cpu"))
    answer = engine.logits({"rgb": clips(3)})
    assert {head: tuple(logits.shape) for head, logits in answer.items()} == {"verb": (3, 2), "noun": (3, 4)}


def test_one_task_head_answers_by_its_own_name(make_trained_model, brightness):
    engine = make_trained_model(brightness(), classes={"action": ("a", "b", "c")}).engine(torch.device("cpu"))
    assert list(engine.logits({"rgb": clips(2)})) == ["action"]


def test_each_stream_gets_its_modality(make_trained_model):
    class Difference(nn.Module):
        def forward(self, rgb, depth):
            return torch.stack([rgb.mean((1, 2, 3, 4)), depth.mean((1, 2, 3, 4))], 1)

    trained = make_trained_model(Difference(), modalities=("rgb", "depth"), classes={"label": ("a", "b")})
    white, black = torch.full((1, 3, 8, 32, 32), 255, dtype=torch.uint8), clips(1, 1) * 0
    logits = trained.engine(torch.device("cpu")).logits({"depth": black, "rgb": white})["label"]
    torch.testing.assert_close(logits, torch.tensor([[1.0, -1.0]]))


def test_answers_that_do_not_fit_the_heads_are_refused(make_trained_model, brightness):
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        make_trained_model(brightness(), classes={"label": tuple("abcd")}).engine(torch.device("cpu")).logits(
            {"rgb": clips(2)}
        )
    with pytest.raises(ValueError, match="verb, noun"):
        by_head(torch.zeros(2, 3), {"verb": 3, "noun": 4})
    answer = {"verb": torch.zeros(2, 3), "noun": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match="'action'"):
        by_head(answer, {"action": 3})
    assert list(by_head(answer, {"noun": 4})) == ["noun"]


def test_an_unavailable_device_is_refused(raises):
    absent = next(
        name
        for name, there in (("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available()))
        if not there
    )
    with raises(DeviceError, absent, "cpu", field="device"):
        choose_device(absent)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


# -- several views -----------------------------------------------------------------------------------------------------


def several(trained, clips=1, crops=1):
    return dataclasses.replace(
        trained,
        sampling=dataclasses.replace(trained.sampling, clips=clips),
        preprocessing=dataclasses.replace(trained.preprocessing, crops=crops),
    )


@pytest.mark.parametrize(("views", "batch"), [((2, 1), 3), ((1, 3), 2), ((2, 3), 1), ((2, 3), 4)])
def test_the_score_of_several_views_is_the_mean_of_their_scores(make_trained_model, tiny_ctn, views, batch):
    trained = make_trained_model(tiny_ctn())
    count = views[0] * views[1]
    given = clips(count * batch)
    logits = several(trained, *views).engine(torch.device("cpu")).logits({"rgb": given})["label"]
    alone = trained.engine(torch.device("cpu")).logits({"rgb": given})["label"].double().softmax(-1)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double().softmax(-1), alone.view(batch, count, -1).mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(batch))  # they are logarithms of the score


def test_equal_views_give_the_score_of_one(make_trained_model, tiny_ctn):
    trained = make_trained_model(tiny_ctn({"verb": 2, "noun": 4}), classes={"verb": ("a", "b"), "noun": tuple("cdef")})
    one = trained.engine(torch.device("cpu")).logits({"rgb": clips(3)})
    six = several(trained, 2, 3).engine(torch.device("cpu")).logits({"rgb": clips(3).repeat_interleave(6, 0)})
    for head, logits in one.items():
        torch.testing.assert_close(six[head].softmax(-1), logits.softmax(-1), rtol=1e-4, atol=1e-6)


def test_sure_views_do_not_become_infinite(make_trained_model):
    """Scores that round to 0 in single precision keep a finite logarithm."""

    class Sure(nn.Module):
        def forward(self, video):
            return torch.tensor([[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0]])[: len(video)]

    trained = several(make_trained_model(Sure()), 2)
    logits = trained.engine(torch.device("cpu")).logits({"rgb": clips(4)})["label"]
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(-1)[0], torch.tensor([1.0, 0.0, 0.0]))


def test_both_streams_see_the_same_view(make_trained_model):
    class Difference(nn.Module):
        def forward(self, rgb, depth):
            return torch.stack([rgb.mean((1, 2, 3, 4)) - depth.mean((1, 2, 3, 4)), rgb.new_zeros(len(rgb))], 1)

    trained = make_trained_model(Difference(), modalities=("rgb", "depth"), classes={"label": ("a", "b")})
    rgb = clips(8)
    depth = rgb.float().mean((1, 2, 3, 4), keepdim=True).round().to(torch.uint8).expand(-1, 1, 8, 32, 32)
    logits = several(trained, 2).engine(torch.device("cpu")).logits({"rgb": rgb, "depth": depth})["label"]
    torch.testing.assert_close(logits.softmax(-1), torch.full((4, 2), 0.5), rtol=0, atol=5e-3)


def test_one_view_is_the_networks_own_answer_to_the_bit(make_trained_model, tiny_ctn):
    trained = make_trained_model(tiny_ctn())
    engine = trained.engine(torch.device("cpu"))
    assert engine.views == 1
    with torch.inference_mode():
        plain = engine.model(trained.preprocessing.normalize("rgb", clips(3)))
    assert torch.equal(engine.logits({"rgb": clips(3)})["label"], plain)


def test_clips_that_are_no_whole_samples_are_refused(make_trained_model, tiny_ctn):
    engine = several(make_trained_model(tiny_ctn()), 2, 3).engine(torch.device("cpu"))
    with pytest.raises(ValueError, match="8 rgb"):
        engine.logits({"rgb": clips(8)})
    with pytest.raises(ValueError, match="views=0"):
        Engine(
            nn.Flatten(),
            preprocessing=engine.preprocessing,
            heads={},
            device=torch.device("cpu"),
            precision="float32",
            views=0,
        )
