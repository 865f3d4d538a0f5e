"""The packaged answers are the packaged BERT's, for every definition, and only for those."""

import torch

from kdlab import metrics, teachers, text
from kdlab.teachers import answers


def test_packaged_answers_are_what_the_teacher_says_when_asked():
    task = text.read("glosses", n_train=20, n_dev=20, n_test=20, seed=5)
    teacher = teachers.bert.glosses()
    for x in (task.x_train, task.x_dev, task.x_test):
        said = metrics.logits(teacher, x, 64)
        assert torch.allclose(answers.glosses(x), said, atol=0.02)  # rounded to float16


def test_every_definition_has_its_answer_and_the_teacher_is_not_asked(monkeypatch):
    task = text.read("glosses", n_train=5_000, n_dev=500, n_test=10_000, seed=1)
    monkeypatch.setattr(teachers.bert, "glosses", lambda *_: (_ for _ in ()).throw(AssertionError("asked")))
    errors = metrics.errors(answers.glosses(task.x_test), task.y_test)
    _, record = answers.store.packaged("glosses-minilm")
    assert abs(errors - record["measures"]["test_errors"]) <= 10  # of 10,000; its own were counted in another precision
    assert answers.glosses(task.x_train).isfinite().all() and answers.glosses(task.x_dev).isfinite().all()


def test_another_text_is_asked(monkeypatch):
    x = text.encoded(["a thing that no dictionary ever defined in these words"])
    known = text.read("glosses", n_train=1, n_dev=1, n_test=3).x_test
    both = torch.nn.functional.pad(known, (0, 40 - known.shape[1])), torch.nn.functional.pad(x, (0, 40 - x.shape[1]))
    teacher = teachers.bert.glosses()
    said = answers.glosses(torch.cat(both))
    assert torch.allclose(said[3:], metrics.logits(teacher, x), atol=1e-3)
    assert torch.allclose(said[:3], answers.glosses(known), atol=1e-6)


def test_a_text_has_one_hash_however_far_it_is_padded_and_another_one_if_a_word_moves():
    x = torch.tensor([[101, 5, 6, 102, 0, 0], [101, 6, 5, 102, 0, 0], [101, 5, 6, 7, 102, 0]])
    assert torch.equal(answers.hashes(x), answers.hashes(torch.nn.functional.pad(x, (0, 9))))
    assert len(answers.hashes(x).unique()) == 3
