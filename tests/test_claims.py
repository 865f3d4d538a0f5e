"""The paper's claims, the records set against them, the verdicts and the claims_page."""

import json
import math
import re
import statistics
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kdlab import cli
from kdlab.course import claims, claims_page


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A course and a store of one's own."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    return tmp_path


def test_the_claims_hold_together():
    assert len({claim.id for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    for claim in claims.CLAIMS:
        assert claim.section in claims_page.SECTIONS | claims_page.POST and claim.says and claim.unit
        if claim.confirmed:
            assert claim.partly[0] <= claim.confirmed[0] <= claim.confirmed[1] <= claim.partly[1], claim.id
        if claim.confirmed and claim.value is not None:
            assert claims.verdict(claim, [claim.value]) == "confirmed", f"the paper does not confirm itself: {claim.id}"


def test_the_papers_numbers_are_the_papers():
    """As printed in sections 3 to 6 of arXiv:1503.02531."""
    printed = {"teacher": 67, "student-alone": 146, "student-distilled": 74, "no-3s": 206, "no-3s-on-3s": 133,
               "no-3s-bias": 109, "no-3s-bias-on-3s": 14, "no-3s-known": 98.6, "only-7-8": 47.3, "only-7-8-bias": 13.2,
               "speech-baseline": 58.9, "speech-ensemble": 61.1, "speech-distilled": 60.8, "specialists-cover-9": 16.6,
               "soft-hard-3-test": 44.5, "soft-soft-3-test": 57.0, "soft-full-test": 58.9,
               "specialists-gain": 4.4}  # fmt: skip
    ours = {id: claims.claim(id).value for id in printed}
    assert printed == ours
    assert round(claims.claim("speech-kept").value) == 86  # the paper says: more than 80
    assert pytest.approx(0.986, abs=5e-4) == (1010 - 14) / 1010


@pytest.mark.parametrize(("values", "said"), [
    ([67, 60, 70], "confirmed"), ([75], "confirmed"), ([76], "partly"), ([60, 92], "partly"), ([90.5], "not"),
    ([], "not yet run"),
])  # fmt: skip
def test_a_verdict_is_that_of_the_mean(values, said):
    assert claims.verdict(claims.claim("teacher"), values) == said


def test_a_number_of_data_that_no_one_else_has_is_not_judged():
    assert claims.verdict(claims.claim("speech-baseline"), [58.9]) == "not judged"


def test_a_record_is_kept_and_judged(elsewhere):
    path = claims.record("teacher", [64, 70], settings={"epochs": 3}, notebook="04_mnist", seconds=12.0)
    assert elsewhere / "store" in path.parents
    kept = json.loads(path.read_text())
    assert kept["values"] == [64, 70] and kept["settings"] == {"epochs": 3} and kept["machine"]["torch"]
    row = next(row for row in claims.judged(claims.records()) if row["claim"] == "teacher")
    assert (row["ours"], row["n"], row["verdict"]) == (67, 2, "confirmed")
    assert row["sd"] == pytest.approx(math.sqrt(18))
    assert next(row for row in claims.judged({}) if row["claim"] == "teacher")["ours"] is None


def test_a_smaller_run_never_takes_a_larger_ones_place(elsewhere):
    own = claims.record("teacher", [70], settings={}, profile="own")
    assert claims.record("teacher", [300], settings={}, profile="smoke") is None
    assert json.loads(own.read_text())["values"] == [70]
    full = claims.record("teacher", [66], settings={}, profile="full")
    assert full == elsewhere / "results" / "claims" / "teacher.json"
    assert claims.record("teacher", [71], settings={}, profile="own") == own
    assert claims.records()["teacher"]["values"] == [66]
    assert claims.record("teacher", [65], settings={}, profile="full") == full
    assert claims.records()["teacher"]["values"] == [65]


@pytest.mark.parametrize(("change", "said"), [
    ({"id": "techer"}, "no claim called 'techer'"), ({"values": []}, "one finite number a seed"),
    ({"values": [math.nan]}, "one finite number a seed"), ({"profile": "huge"}, "profile is one of"),
])  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(elsewhere, change, said):
    with pytest.raises(ValueError, match=said):
        claims.record(**{"id": "teacher", "values": [1.0], "settings": {}} | change)
    assert not list(elsewhere.rglob("*.json"))


def test_a_record_cut_short_is_named_and_an_interrupted_one_leaves_the_old(elsewhere, monkeypatch):
    path = claims.record("teacher", [70], settings={})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        claims.record("teacher", [71], settings={})
    assert json.loads(path.read_text())["values"] == [70] and len(list(path.parent.iterdir())) == 1
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="run its notebook again"):
        claims.records()


def test_the_page_says_what_the_rows_say_and_needs_nothing_else():
    claims.record("teacher", [64, 70], settings={}, notebook="04_mnist")
    claims.record("student-alone", [400], settings={})
    rows = claims.judged(claims.records())
    text = claims_page.of(rows)
    assert not re.search(r"(src|href)=['\"](https?:|//)|<script|@import|url\(", text)
    line = re.search(r"<tr id='teacher'>.*?</tr>", text)[0]
    assert "67 ± 4.2 (2)" in line and ">confirmed<" in line and line.count("<circle") == 2 and "04_mnist" in line
    assert ">not<" in re.search(r"<tr id='student-alone'>.*?</tr>", text)[0]
    assert ">not yet run<" in re.search(r"<tr id='no-3s'>.*?</tr>", text)[0]
    assert claims_page.counted(rows).startswith(f"{len(claims.CLAIMS)} claims: 1 confirmed, 1 not, ")
    table = claims_page.table(rows).splitlines()
    assert len(table) == 4 and "| 67 | 67 ± 4.2 (2) | confirmed |" in table[2]


def test_dots_and_bands_stand_where_the_numbers_are():
    picture = claims_page._picture(claims.claim("student-alone"), [146.0, 200.0], width=100)
    first, second = (float(x) for x in re.findall(r"<circle cx='([\d.]+)'", picture))
    line = float(re.search(r"x='([\d.]+)' width='2'", picture)[1]) + 1
    assert first == pytest.approx(line, abs=0.2) and second > 90
    band = re.search(r"x='([\d.]+)' width='([\d.]+)' height='26' fill='#a9d6c4'", picture)
    low, wide = map(float, band.groups())
    assert low < first < low + wide < second


def test_report_prints_a_list_of_claims_as_json(elsewhere):
    claims.record("teacher", [64, 70], settings={})
    rows = json.loads(CliRunner().invoke(cli.app, ["report", "--json"]).stdout)
    teacher = next(row for row in rows if row["claim"] == "teacher")
    assert set(teacher) == {"claim", "section", "paper", "unit", "ours", "sd", "n", "verdict"}
    assert teacher["ours"] == statistics.fmean([64, 70]) and len(rows) == len(claims.CLAIMS)
    assert next(row for row in rows if row["claim"] == "no-3s")["ours"] is None
    assert not (elsewhere / "build").exists() and Path.cwd().name == "notebooks"
