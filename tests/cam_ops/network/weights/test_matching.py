"""The network of a file is found wherever trainers put it: its logits are those of the network that was saved."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cam_ops.errors import UsageError
from cam_ops.network.load import Classifier, load_classifier
from cam_ops.settings import ModelConfig
from tests.support.trained import logits_of, trained

NAME = "shufflenet_v2_x0_5"
State = dict[str, Tensor]


def network_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return trained(torchvision.models.get_model(NAME, weights=None, num_classes=10))


SAVED, OTHER = network_of(3), network_of(4)
STATE: State = dict(SAVED.state_dict())
ELSE: State = dict(OTHER.state_dict())


def with_prefix(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def without(state: State, *endings: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(endings)}


def with_head(name: str, state: State = STATE) -> State:
    return {name + key[2:] if key.startswith("fc.") else key: tensor for key, tensor in state.items()}


def load(tmp_path: Path, content: object, **flags: Any) -> Classifier:
    torch.save(content, tmp_path / "a.ckpt")
    return load_classifier(ModelConfig(model=NAME, weights=str(tmp_path / "a.ckpt"), **flags))


def refusal(tmp_path: Path, content: object, **flags: Any) -> str:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, content, **flags)
    return str(refused.value)


COUNTED: State = {
    **STATE,
    "total_ops": torch.ones(1),
    "conv1.0.total_ops": torch.ones(1),
    "fc.total_params": torch.ones(1),
}
LIGHTNING: dict[str, Any] = {
    "epoch": 3,
    "pytorch-lightning_version": "2.5.1",
    "state_dict": {**with_prefix("model.", STATE), "loss.weight": torch.ones(10), "train_acc.tp": torch.ones(10)},
    "callbacks": {"ModelCheckpoint": {"best_model_path": Path("a.ckpt"), "best_model_score": torch.ones(())}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
    "hyper_parameters": argparse.Namespace(lr=0.1, folder=Path("data")),
}
FORMS: dict[str, tuple[object, str]] = {
    "plain": (STATE, "; "),
    "no counts of batches": (without(STATE, "num_batches_tracked"), "weights: 282 tensors of "),
    "thop": (COUNTED, "left out 3: total_ops, conv1.0.total_ops, fc.total_params"),
    "extra state": ({**STATE, "fc._extra_state": None, "note": "x"}, "left out 2: fc._extra_state, note"),
    "lightning": (LIGHTNING, "key state_dict, prefix model. removed; left out 2: loss.weight, train_acc.tp"),
    "lightning, in parallel": (
        {"state_dict": with_prefix("net._orig_mod.module.", STATE)},
        "prefix net.module. removed",
    ),
    "compiled in part": (
        {name.replace("stage2.", "stage2._orig_mod."): tensor for name, tensor in STATE.items()},
        "weights: 338 tensors of ",
    ),
    "averaged": (AveragedModel(SAVED).state_dict(), "prefix module. removed; left out 1: n_averaged"),
    "nested": ({"model": {"ema": {"module": STATE}}}, "key model.ema.module"),
    "head": (with_head("classifier"), "the head is classifier"),
    "head behind dropout": (with_head("fc.1"), "the head is fc.1"),
    "head beside": (
        {"state_dict": {**with_prefix("backbone.", without(STATE, "fc.weight", "fc.bias")),
                        "head.weight": STATE["fc.weight"], "head.bias": STATE["fc.bias"], "loss.w": torch.ones(10)}},
        "prefix backbone. removed, the head is head; left out 1: loss.w",
    ),
    "the same twice": ({"model": STATE, "net": dict(STATE)}, "key model"),
}  # fmt: skip
for _key in ("net", "network", "ema", "model_state", "model_state_dict", "params", "weights", "teacher", "student"):
    FORMS[f"key {_key}"] = ({_key: STATE, "epoch": 3}, f"key {_key}")


@pytest.mark.parametrize("form", FORMS)
def test_the_network_of_a_checkpoint_is_the_one_that_was_saved(tmp_path: Path, form: str) -> None:
    content, said = FORMS[form]
    classifier = load(tmp_path, content)
    assert torch.equal(logits_of(classifier.network), logits_of(SAVED))
    assert len(classifier.notes) == 1
    if form != "plain":
        assert said in classifier.notes[0]


def test_what_was_matched_is_said_in_a_line(tmp_path: Path) -> None:
    where = tmp_path / "a.ckpt"
    assert load(tmp_path, STATE).notes == (f"weights: {len(STATE)} tensors of {where}",)
    assert load(tmp_path, LIGHTNING).notes == (
        f"weights: {len(STATE)} tensors of {where}, key state_dict, prefix model. removed; "
        "left out 2: loss.weight, train_acc.tp",
    )


def test_an_average_of_weights_is_read_as_it_is_saved(tmp_path: Path) -> None:
    averaged = AveragedModel(SAVED, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    averaged.update_parameters(SAVED)
    averaged.update_parameters(OTHER)
    found = load(tmp_path, averaged.state_dict()).network
    assert torch.equal(logits_of(found), logits_of(averaged.module))
    assert not torch.allclose(logits_of(found), logits_of(SAVED))


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema", "swa_model"])
def test_weights_beside_their_average_are_taken_and_the_flag_chooses(tmp_path: Path, average: str) -> None:
    both = {average: ELSE, "state_dict": STATE}
    usual = load(tmp_path, both)
    assert torch.equal(logits_of(usual.network), logits_of(SAVED))
    choice = f"weights: state_dict is taken; {average} would fit as well: --checkpoint-key chooses"
    assert usual.notes[1:] == (choice,)
    for key, network in ((average, OTHER), ("state_dict", SAVED)):
        chosen = load(tmp_path, both, checkpoint_key=key)
        assert torch.equal(logits_of(chosen.network), logits_of(network))
        assert len(chosen.notes) == 1


def test_two_networks_of_one_rank_are_refused_until_the_flag_names_one(tmp_path: Path) -> None:
    both: dict[str, Any] = {"student": STATE, "teacher": ELSE}
    said = "holds several networks that fit, at student, teacher; say which: --checkpoint-key KEY"
    assert said in refusal(tmp_path, both)
    assert torch.equal(logits_of(load(tmp_path, both, checkpoint_key="teacher").network), logits_of(OTHER))
    within = {"state_dict": with_prefix("student.", STATE) | with_prefix("teacher.", ELSE)}
    assert "at state_dict.student, state_dict.teacher" in refusal(tmp_path, within)
    found = load(tmp_path, within, checkpoint_key="state_dict.teacher").network
    assert torch.equal(logits_of(found), logits_of(OTHER))
    nowhere = refusal(tmp_path, both, checkpoint_key="ema")
    assert "--checkpoint-key ema: " in nowhere
    assert "has no weights there; it has some at student, teacher" in nowhere


def test_networks_whose_numbers_have_other_formats_are_compared_by_their_numbers(tmp_path: Path) -> None:
    exact = {name: tensor.double() for name, tensor in STATE.items()}
    assert "key model" in load(tmp_path, {"model": STATE, "again": exact}).notes[0]
    small = {name: tensor.to(torch.float8_e4m3fn) if tensor.ndim else tensor for name, tensor in STATE.items()}
    said = refusal(tmp_path, {"model": STATE, "small": small})
    assert "holds several networks that fit, at model, small; say which: --checkpoint-key KEY" in said


def test_a_network_is_found_behind_many_blocks_that_begin_as_it_does(tmp_path: Path) -> None:
    blocks = {f"{number}.conv1.0.weight": STATE["conv1.0.weight"] for number in range(50)}
    found = load(tmp_path, blocks | with_prefix("a_long_name_of_a_module.", STATE))
    assert torch.equal(logits_of(found.network), logits_of(SAVED))
    assert "prefix a_long_name_of_a_module. removed" in found.notes[0]


def test_more_names_than_any_network_has_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    names = [f"{number}.conv1.0.weight" for number in range(50)] + [f"{number}" for number in range(100_000)]
    said = refusal(tmp_path, dict.fromkeys(names, torch.ones(1)))
    assert f"{tmp_path / 'a.ckpt'} has 100050 names beside its tensors, at most 100000 are read" in said
    assert said.endswith("or raise the limits by --file-limits")


def test_a_layer_that_may_follow_the_network_is_refused_until_the_flag_says_that_it_does_not(tmp_path: Path) -> None:
    own = {"state_dict": with_prefix("model.", STATE) | {"head.1.weight": torch.ones(3, 1024)}}  # in the place of fc
    assert "holds head.1.weight beside the network below model., which may take part" in refusal(tmp_path, own)
    more = {"state_dict": with_prefix("model.", STATE) | {"head.weight": torch.ones(3, 10)}}
    assert "holds head.weight beside the network below model., which may take part" in refusal(tmp_path, more)
    found = load(tmp_path, more, checkpoint_key="state_dict.model").network
    assert torch.equal(logits_of(found), logits_of(SAVED))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fc.0.weight": torch.ones(64, 1024), "fc.0.bias": torch.ones(64), "fc.2.weight": torch.ones(10, 64)},
         "missing fc.weight, fc.bias; unexpected fc.0.weight, fc.0.bias, fc.2.weight"),  # one alone would fit
        ({"a.weight": torch.ones(9, 1024), "a.bias": torch.ones(9), "b.weight": torch.ones(9, 1024),
          "b.bias": torch.ones(9)},
         "missing fc.weight, fc.bias; unexpected a.weight, a.bias, b.weight, b.bias"),
        ({"fc.1.weight": torch.ones(10, 1024)}, "missing fc.weight, fc.bias; unexpected fc.1.weight"),
        ({"fc.weight_g": torch.ones(10, 1), "fc.weight_v": torch.ones(10, 1024), "fc.bias": torch.ones(10)},
         "missing fc.weight; unexpected fc.weight_g, fc.weight_v"),
        ({"fc.0.weight": torch.ones(1024), "fc.0.bias": torch.ones(1024), "fc.1.weight": torch.ones(10, 1024),
          "fc.1.bias": torch.ones(10)}, "unexpected fc.0.weight, fc.0.bias"),
        ({"fc.weight": torch.ones(10, 1024), "fc.bias": torch.ones(7)}, "fc.weight is (10, 1024), expected (7, 1024)"),
    ],
)  # fmt: skip
def test_a_head_with_no_reading_or_two_is_refused(tmp_path: Path, changed: State, reason: str) -> None:
    assert reason in refusal(tmp_path, without(STATE, "fc.weight", "fc.bias") | changed)


def test_a_head_beside_a_layer_that_may_come_before_it_is_refused(tmp_path: Path) -> None:
    body = with_prefix("backbone.", without(STATE, "fc.weight", "fc.bias"))
    head = {"head.weight": STATE["fc.weight"], "head.bias": STATE["fc.bias"]}
    two = {name: torch.ones(10, 1024) if "weight" in name else torch.ones(10) for name in ("loss.weight", "loss.bias")}
    assert "missing fc.weight, fc.bias" in refusal(tmp_path, two | body | head)
    assert "holds norm.weight beside the network" in refusal(tmp_path, body | head | {"norm.weight": torch.ones(1024)})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    packed = (torch.quantize_per_tensor(STATE["fc.weight"], 0.1, 0, torch.qint8), STATE["fc.bias"])
    body = without(STATE, "fc.weight", "fc.bias")
    lost = {**body, "fc.scale": torch.ones(()), "fc._packed_params.dtype": torch.qint8}
    lost["fc._packed_params._packed_params"] = packed  # type: ignore[assignment]
    assert "holds quantised weights (fc._packed_params.dtype, fc._packed_params._packed_params)" in refusal(
        tmp_path, lost
    )
    assert "holds quantised weights (fc.weight)" in refusal(tmp_path, {**STATE, "fc.weight": packed[0]})


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    said = refusal(tmp_path, {**STATE, "fc.weight": STATE["fc.weight"].to(torch.int8)})
    assert "fc.weight is torch.int8, expected torch.float32" in said
