"""Activations caught by name: the same as the net's own, gone when the block ends, and never half a batch."""

import pytest
import torch
from torch import nn

from kdlab import text
from kdlab.train import features


def tiny():
    return text.untrained(layers=2, width=8, heads=2, vocab_size=50)


X = torch.tensor([[1, 7, 9, 2, 0], [1, 4, 2, 0, 0]])


def test_hidden_states_of_bert_are_those_that_transformers_itself_gives():
    net = tiny()
    names = ["model.bert.embeddings", *(f"model.bert.encoder.layer.{i}" for i in range(2))]
    with features.capture(net, names) as seen:
        logits = net(X)
    own = net.model(X, attention_mask=(X != 0).long(), output_hidden_states=True)
    torch.testing.assert_close(logits, own.logits)
    for name, theirs in zip(names, own.hidden_states, strict=True):
        torch.testing.assert_close(seen[name], theirs)


def test_any_net_will_do_and_gradients_pass():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with features.capture(net, ["1"]) as seen:
        net(torch.ones(5, 3))
    seen["1"].sum().backward()
    assert net[0].weight.grad is not None and net[2].weight.grad is None


def test_of_several_outputs_the_first_is_kept():
    net = nn.Sequential(nn.LSTM(3, 4, batch_first=True))
    with features.capture(net, ["0"]) as seen:
        net(torch.ones(2, 5, 3))
    assert seen["0"].shape == (2, 5, 4)


def test_each_pass_begins_anew_and_nothing_is_left_behind():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with features.capture(net, ["0"]) as seen:
        net(torch.zeros(1, 3))
        net(torch.ones(7, 3))
        assert seen["0"].shape == (7, 4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    with pytest.raises(ZeroDivisionError), features.capture(net, ["0"]):
        1 / 0  # noqa: B018
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_module_that_is_called_twice_in_a_pass_is_an_error_that_says_why():
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, shared)
    with features.capture(net, ["0"]), pytest.raises(RuntimeError, match="several layers share this module"):
        net(torch.ones(1, 3))


def test_a_name_that_is_not_there_is_answered_with_some_that_are():
    catch = features.capture(tiny(), ["model.bert.encoder.layers.0"])
    with pytest.raises(ValueError, match=r"'model.bert.encoder.layers.0'.*model.bert.encoder.layer.0"):
        catch.__enter__()
