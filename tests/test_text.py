"""Words as numbers and BERT as a plain net: nothing depends on padding, grouping or the order of a batch."""

import pytest
import torch

from kdlab import data, metrics, models, store, teachers, text, train
from kdlab.teachers import bert, low_rank
from kdlab.train import features


@pytest.fixture(scope="module")
def task():
    return text.read("glosses", n_train=40, n_dev=30, n_test=50)


def small(**settings):
    return text.untrained(5, layers=2, width=16, heads=2, **settings)


def words(n: int, longest: int, seed: int = 0) -> torch.Tensor:
    """n rows of token numbers, each of its own length, padded with 0."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 1000, (n, longest), generator=rng)
    ends = torch.randint(1, longest + 1, (n,), generator=rng)
    return x.masked_fill(torch.arange(longest) >= ends[:, None], 0)


def test_tokens_are_those_of_the_tokenizer_and_padded_at_the_end():
    cut = text.tokenizer()
    x = text.encoded(["a dog", "a domesticated carnivorous mammal that barks"], cut)
    assert x[0].tolist()[:4] == cut.convert_tokens_to_ids(["[CLS]", "a", "dog", "[SEP]"])
    assert not x[0, 4:].any() and x[1].all()
    assert text.lengths(x).tolist() == [4, x.shape[1]]


def test_a_tokenizer_that_pads_at_the_beginning_pads_at_the_end_here_and_one_without_padding_is_refused():
    cut = text.tokenizer()
    expected = text.encoded(["a dog", "a domesticated carnivorous mammal that barks"])
    cut.padding_side = "left"
    assert torch.equal(text.encoded(["a dog", "a domesticated carnivorous mammal that barks"], cut), expected)
    cut.pad_token = None
    with pytest.raises(ValueError, match="has no padding.*pad_token = tokenizer.eos_token"):
        text.encoded(["a dog"], cut)


def test_about_3_in_100_definitions_are_longer_than_what_is_read():
    cut = text.tokenizer()(data.load("glosses").test.texts)["input_ids"]
    assert 0.025 < sum(len(row) > text.LONGEST for row in cut) / len(cut) < 0.04


def test_long_texts_are_cut_to_the_longest():
    assert text.encoded(["word " * 100], longest=12).shape == (1, 12)


def test_a_task_has_the_texts_and_labels_of_the_data(task):
    glosses = data.load("glosses")
    label = dict(zip(glosses.test.texts, glosses.test.y.tolist(), strict=True))
    assert [label[each] for each in task.texts_test] == task.y_test.tolist()
    assert torch.equal(text.encoded(task.texts_test), task.x_test)
    assert (len(task.x_train), len(task.x_dev), len(task.x_test)) == (40, 30, 50)


def test_a_tokenizer_that_pads_with_another_number_is_followed(tmp_path):
    """RoBERTa pads with 1: such a tokenizer, saved by transformers and read by its folder."""
    cut = text.tokenizer()
    cut.pad_token = cut.convert_ids_to_tokens(1)
    cut.save_pretrained(tmp_path)
    read = text.read("glosses", n_train=40, n_dev=30, n_test=50, tokens=str(tmp_path))
    same = text.read("glosses", n_train=40, n_dev=30, n_test=50)
    assert read.pad == 1 and same.pad == 0 and text.select_classes(read, "noun.*").pad == 1
    assert torch.equal(read.x_test, same.x_test.masked_fill(same.x_test == 0, 1))
    assert torch.equal(metrics.sample(read.x_test, 8, tokens=9, pad=1), metrics.sample(same.x_test, 8, tokens=9))


def test_dev_and_test_go_from_short_to_long(task):
    for x in (task.x_dev, task.x_test):
        assert text.lengths(x).diff().min() >= 0


def test_the_same_seed_reads_the_same_texts_and_another_others():
    a, b, c = (text.read("glosses", n_train=40, n_dev=5, n_test=5, seed=seed).x_train for seed in (0, 0, 1))
    assert torch.equal(a, b) and (a.shape != c.shape or not torch.equal(a, c))


def test_padding_changes_no_logit():
    net, x = small(), words(6, 9)
    wider = torch.nn.functional.pad(x, (0, 7))
    with torch.no_grad():
        torch.testing.assert_close(net(wider), net(x), rtol=1e-4, atol=1e-6)


def test_groups_change_no_logit_and_no_gradient():
    net, x = small(), words(23, 12)
    found = []
    for group in (None, 4, 16):
        net.zero_grad()
        logits = models.logits(net, x, group)
        logits.square().sum().backward()
        found.append(
            (
                logits.detach(),
                net.model.classifier.weight.grad.clone(),
                net.model.bert.embeddings.word_embeddings.weight.grad.clone(),
            )
        )
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_group_reads_no_more_than_its_longest_text():
    net, x = small(), words(23, 12)
    read = []
    words_of = net.model.bert.embeddings.word_embeddings
    look_up = words_of.forward
    words_of.forward = lambda tokens: read.append(tuple(tokens.shape)) or look_up(tokens)
    lengths = text.lengths(x).sort().values
    models.logits(net, x, 8)
    assert read == [(8, lengths[7]), (8, lengths[15]), (7, lengths[22])]
    read.clear()
    models.logits(net.model, x, 8)  # as it comes from transformers
    assert len(read) == 3
    read.clear()
    models.logits(net, x.flip(1), 8)  # padded at the beginning: cutting would lose words
    assert read == [(23, 12)]
    with features.capture(net, ["model.bert.encoder.layer.0"]) as seen:
        models.logits(net, x, 8)
    assert seen["model.bert.encoder.layer.0"].shape[0] == 23, "who looks inside sees the whole batch"
    met = []
    hook = net.model.bert.encoder.layer[0].register_forward_hook(lambda *given: met.append(len(given[1][0])))
    models.logits(net, x, 8)
    hook.remove()
    assert met == [23]


def test_logits_are_transformers_own():
    net, x = small(), words(5, 8)
    with torch.no_grad():
        theirs = net.model(input_ids=x, attention_mask=(x != 0).long()).logits
        torch.testing.assert_close(net(x), theirs, rtol=1e-4, atol=1e-6)


def test_the_seed_draws_the_classifier_alone():
    a, b, c = text.pretrained(n_classes=3), text.pretrained(n_classes=3), text.pretrained(n_classes=3, seed=1)
    assert torch.equal(a.model.classifier.weight, b.model.classifier.weight)
    assert not torch.equal(a.model.classifier.weight, c.model.classifier.weight)
    assert torch.equal(a.model.bert.pooler.dense.weight, c.model.bert.pooler.dense.weight)
    assert metrics.parameters(a) == 22_713_216 + 3 * 384 + 3


def test_loading_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.rand(2)
    torch.manual_seed(3)
    small(seed=9)
    assert torch.equal(torch.rand(2), before)


def test_a_net_that_is_nowhere_says_what_to_use_instead(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="'minilm-l6'"):
        text.pretrained("/no/such/folder")


def test_a_saved_net_is_loaded_by_transformers_alone(tmp_path):
    import transformers

    net, x = small(), words(4, 7)
    net.model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again(input_ids=x, attention_mask=(x != 0).long()).logits, net(x), rtol=1e-4, atol=1e-6
        )


def test_updates_change_nothing_until_they_learn_and_then_merge_into_the_same_net():
    net, x = small(), words(8, 6)
    names = list(net.state_dict())
    with torch.no_grad():
        before = net(x)
        low_rank.add(net, net.model.bert.encoder, rank=3)
        torch.testing.assert_close(net(x), before)
    net.model.classifier.requires_grad_(True)
    frozen = net.model.bert.embeddings.word_embeddings.weight.clone()
    train.fit(net, (x, torch.arange(8) % 5), train.labels(), epochs=3, lr=1e-2, batch_size=4)
    with torch.no_grad():
        learned = net(x)
        assert (learned - before).abs().max() > 1e-3
        low_rank.merge(net)
        torch.testing.assert_close(net(x), learned, rtol=1e-4, atol=1e-5)
    assert list(net.state_dict()) == names
    assert torch.equal(net.model.bert.embeddings.word_embeddings.weight, frozen)


def test_an_update_has_the_rank_it_was_given():
    layer = torch.nn.Linear(20, 30)
    before = layer.weight.detach().clone()
    updated = low_rank.Updated(layer, rank=4)
    with torch.no_grad():
        updated.up.normal_()
    assert torch.linalg.matrix_rank(updated.merged().weight - before) == 4


def test_the_packaged_bert_makes_the_errors_that_its_record_says():
    """On the first of the test texts: as many as the whole, to within four standard errors."""
    net = bert.glosses()
    record = teachers.record("glosses")
    n = 400
    task = text.read("glosses", n_train=1, n_dev=1, n_test=n)
    share = record["measures"]["test_errors"] / 10_000
    wrong = metrics.errors(metrics.logits(net, task.x_test, 64), task.y_test) / n
    assert abs(wrong - share) < 4 * (share * (1 - share) / n) ** 0.5
    assert share < 0.2 and not any(p.requires_grad for p in net.parameters())


def test_fine_tuning_is_kept_and_not_done_twice(task, tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path))
    task = task._replace(
        x_train=task.x_train[:8],
        y_train=task.y_train[:8],
        x_dev=task.x_dev[:4],
        y_dev=task.y_dev[:4],
        x_test=task.x_test[:4],
        y_test=task.y_test[:4],
    )
    changed = {"epochs": 1, "rank": 2}
    first = bert.fine_tuned(task, **changed)
    monkeypatch.setattr(bert, "learn", lambda *_: pytest.fail("trained twice"))
    again = bert.fine_tuned(task, **changed)
    assert torch.equal(metrics.logits(first, task.x_test), metrics.logits(again, task.x_test))
    assert len(store.entries()) == 1


def test_only_keeps_the_texts_of_some_classes_and_counts_these_anew(task):
    nouns = text.select_classes(task, "noun.*")
    assert nouns.classes == tuple(name for name in task.classes if name.startswith("noun."))
    for part in ("train", "dev", "test"):
        y, mine = getattr(task, f"y_{part}"), getattr(nouns, f"y_{part}")
        chosen = [i for i, c in enumerate(y.tolist()) if task.classes[c].startswith("noun.")]
        assert [nouns.classes[c] for c in mine.tolist()] == [task.classes[y[i]] for i in chosen]
        assert torch.equal(getattr(nouns, f"x_{part}"), getattr(task, f"x_{part}")[chosen])
    assert nouns.texts_test == [
        task.texts_test[i] for i, c in enumerate(task.y_test.tolist()) if task.classes[c].startswith("noun.")
    ]
    with pytest.raises(ValueError, match=r"'noun\.dogs'"):
        text.select_classes(task, ["verb.*", "noun.dogs"])


def test_a_new_classifier_stands_on_the_same_encoder_and_leaves_the_net_alone():
    net, x = small(), words(4, 6)
    other = text.classifier(net, 7, seed=1)
    with torch.no_grad():
        assert other(x).shape == (4, 7) and net(x).shape == (4, 5)
    assert torch.equal(other.model.bert.pooler.dense.weight, net.model.bert.pooler.dense.weight)
    assert other.model.bert.pooler.dense.weight is not net.model.bert.pooler.dense.weight
    assert torch.equal(other.model.classifier.weight, text.classifier(net, 7, seed=1).model.classifier.weight)
    assert not torch.equal(other.model.classifier.weight, text.classifier(net, 7, seed=2).model.classifier.weight)
    assert other.model.config.num_labels == 7 and net.model.config.num_labels == 5
