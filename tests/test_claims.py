"""The claims, the verdicts, the records set against them, and the page."""

import json
import math
import re
import statistics
import warnings
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT, make_course
from typer.testing import CliRunner

from kdlab import cli, machine, place
from kdlab.course import claims, claims_page, comparison, records, sources
from kdlab.metrics import round_to_spread

RESULTS = sorted((ROOT / "results" / "claims").glob("*.json"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A course and a store of one's own."""
    monkeypatch.chdir(make_course(tmp_path))
    monkeypatch.setenv("KDLAB_STORE", str(tmp_path / "store"))
    return tmp_path


def keep(id="teacher", values=(64, 70), **about):
    return records.keep(id, [*values], **{"settings": {}, "profile": "own", "notebook": "04_mnist"} | about)


def rows():
    return {row["claim"]: row for row in records.judged(records.kept())}


def judged(values, confirmed, partly, **about):
    about = {"id": "x", "section": "3", "says": "so", "unit": "of it", "kind": "measured"} | about
    return claims.verdict(claims.Claim(confirmed=confirmed, partly=partly, **about), values)


# The claims


def test_a_claim_can_be_cited_alone_and_its_source_confirms_it():
    assert len({claim.id for claim in claims.CLAIMS}) == len(claims.CLAIMS) == 77
    assert len({(claim.section, claim.says, claim.unit) for claim in claims.CLAIMS}) == 77
    for claim in claims.CLAIMS:
        assert claim.section in claims_page.SECTIONS | claims_page.POST and "…" not in claim.says and claim.unit
        if claim.confirmed and claim.value is not None:
            assert claims.verdict(claim, [claim.value] * 3) == "confirmed", f"the source fails itself: {claim.id}"


def test_the_papers_numbers_are_printed_as_the_paper_prints_them():
    """As in sections 3 to 6 of arXiv:1503.02531."""
    printed = {
        "teacher": "67",
        "student-alone": "146",
        "student-distilled": "74",
        "no-3s": "206",
        "no-3s-on-3s": "133",
        "no-3s-bias": "109",
        "no-3s-bias-on-3s": "14",
        "no-3s-known": "98.6",
        "only-7-8": "47.3",
        "only-7-8-bias": "13.2",
        "speech-baseline": "58.9",
        "speech-ensemble": "61.1",
        "speech-distilled": "60.8",
        "specialists-cover-0": "0.0",
        "specialists-cover-9": "16.6",
        "soft-hard-3-test": "44.5",
        "soft-soft-3-test": "57.0",
        "soft-full-test": "58.9",
        "specialists-gain": "4.4",
    }
    assert printed == {id: claims.claim(id).source for id in printed}
    assert all(claims.claim(id).value == float(text) for id, text in printed.items())
    assert pytest.approx(0.986, abs=5e-4) == (1010 - 14) / 1010


def test_a_number_worked_out_from_printed_ones_is_theirs():
    value = {claim.id: claim.value for claim in claims.CLAIMS}
    gains = [value[f"specialists-cover-{n}"] for n in range(11)]
    ranks = [sorted(gains).index(gain) for gain in gains]
    rho = 1 - 6 * sum((i - rank) ** 2 for i, rank in enumerate(ranks)) / (11 * (11**2 - 1))
    assert value["specialists-trend"] == pytest.approx(rho, abs=1e-6)
    assert claims.claim("specialists-trend").source == "0.99" == f"{rho:.2f}"
    alone, student, teacher = (value[id] for id in ("student-alone", "student-distilled", "teacher"))
    assert value["gap-closed"] == pytest.approx(100 * (alone - student) / (alone - teacher), abs=1e-5)
    for id, low, now, high in (
        ("speech-kept", "speech-baseline", "speech-distilled", "speech-ensemble"),
        ("soft-recovered", "soft-hard-3-test", "soft-soft-3-test", "soft-full-test"),
    ):
        share = 100 * (value[now] - value[low]) / (value[high] - value[low])
        assert value[id] == pytest.approx(share, abs=1e-5) and claims.claim(id).source == f"{share:.0f}"
        assert claims.claim(id).source_note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "measure"}, "kind is one of"),
        ({"confirmd": [0, 1]}, "confirmd"),
        ({"confirmed": [0, 1]}, "both ranges"),
        ({"confirmed": [0, 1], "partly": [0.5, 2]}, "not inside"),
        ({"scale": "count"}, "test_size"),
        ({"kind": "another's data", "confirmed": [0, 1], "partly": [0, 2]}, "none for another's data"),
    ],
)
def test_a_claim_that_makes_no_sense_is_named(tmp_path, change, message):
    table = {"id": "x", "section": "3", "says": "so", "unit": "of it", "kind": "measured"} | change
    path = tmp_path / "claims.toml"
    path.write_text("[[claim]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    with pytest.raises(ValueError, match=f"claim x: .*{message}"):
        claims.read(path)


# The verdicts


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        # mean ± 2 sd/√n by hand: sd of (a - d, a, a + d) is d, so the interval is a ± 2d/√3 = a ± 1.1547 d
        ([9, 10, 11], "confirmed"),  # 8.85 to 11.15
        ([11, 13, 15], "partly"),  # 10.7 to 15.3: beyond 15, within 18
        ([17, 18, 19], "too noisy"),  # 16.8 to 19.2 leaves the wider range, but not wholly
        ([20, 21, 22], "not"),  # 19.8 to 22.2
        ([5, 10, 15], "too noisy"),  # 4.2 to 15.8: wider than the range that confirms
        ([15, 15], "confirmed"),
        ([18, 18, 18], "partly"),
        ([18.01, 18.01], "not"),
        ([10], "one run only"),
        ([], "not yet run"),
    ],
)
def test_a_verdict_is_that_of_the_whole_interval(values, verdict):
    assert judged(values, (5, 15), (2, 18)) == verdict


def test_with_an_open_range_the_interval_still_must_not_leave_it():
    values = [115.38, 23.08, 161.54]  # 100 ± 71: the interval is 18 to 182
    assert judged(values, (80, math.inf), (50, math.inf)) == "too noisy"
    assert claims.verdict(claims.claim("speech-words-kept"), values) == "too noisy"
    assert judged([1e9, 2e9, 3e9], (80, math.inf), (50, math.inf)) == "confirmed"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([60], "partly"),  # √(60 (1 - 0.006)) = 7.7: 44.6 to 75.4
        ([59], "confirmed"),  # 43.7 to 74.3
        ([75], "too noisy"),  # 57.7 to 92.3
        ([74], "too noisy"),  # 56.8 to 91.2
        ([115], "not"),  # 93.7 to 136.3
        ([0], "confirmed"),
    ],
)
def test_of_one_seed_the_test_sets_own_error_counts(values, verdict):
    assert claims.verdict(claims.claim("teacher"), values) == verdict


def test_the_error_of_a_count_and_of_a_percentage_are_the_same():
    count, percent = (claims.claim("teacher")._replace(scale=scale) for scale in ("count", "percent"))
    for share in (0.0, 0.001, 0.5, 0.9, 1.0):
        error = 100 * math.sqrt(share * (1 - share) / 10_000)
        assert claims.test_error(percent, 100 * share) == pytest.approx(error)
        assert claims.test_error(count, 10_000 * share) == pytest.approx(100 * error)


def test_more_seeds_of_the_same_spread_decide_what_few_left_open():
    few = [6, 14]
    assert judged(few, (5, 15), (2, 18)) == "too noisy" and judged(few * 20, (5, 15), (2, 18)) == "confirmed"


def test_arithmetic_has_no_error_and_anothers_data_no_verdict():
    assert judged([10], (5, 15), (2, 18), kind="arithmetic") == "confirmed"
    assert judged([16], (5, 15), (2, 18), kind="arithmetic") == "partly"
    assert judged([10, 11], None, None) == "not judged"
    for id in ("speech-baseline", "distill-lstm-size", "distill-lstm-speed"):  # against ELMo
        assert claims.verdict(claims.claim(id), [claims.claim(id).value] * 2) == "not judged"


@pytest.mark.parametrize(
    ("value", "spread", "printed"),
    [
        (79.36, 6.1, ("79.4", "6.1")),
        (100.0, 71.2, ("100", "71")),
        (0.002307, 0.004, ("0.0023", "0.0040")),
        (146.2, 4.2, ("146.2", "4.2")),
        (9.6751, 3.71, ("9.7", "3.7")),
        (5.0, 0.0996, ("5.00", "0.10")),
        (1234.5, 177.0, ("1230", "180")),
        (-0.001, 0.5, ("0.00", "0.50")),
        (3.0, 0.0, ("3", "0")),
        (1.0023, None, ("1.00", "")),
        (135.476, None, ("135", "")),
        (67.0, None, ("67", "")),
        (0.47, None, ("0.47", "")),
        (0.0, None, ("0", "")),
        (12345.6, None, ("12346", "")),
    ],
)
def test_a_number_is_rounded_to_its_spread(value, spread, printed):
    assert round_to_spread(value, spread) == printed


# The records


def test_a_record_is_kept_and_judged(elsewhere):
    path = keep(settings={"epochs": 3, "Ts": (1, 2)}, seconds=12.0, code={"kdlab.train.fit": "ab"})
    assert elsewhere / "store" in path.parents
    record = json.loads(path.read_text())
    assert record["values"] == [64, 70] and record["settings"] == {"epochs": 3, "Ts": [1, 2]}
    assert record["machines"] == [machine.describe()] and record["of_value"] == [[0], [0]]
    assert record["code"] == {"kdlab.train.fit": "ab"} and record["seconds"] == 12
    row = rows()["teacher"]
    assert (row["ours"], row["n"], row["verdict"]) == (67, 2, "confirmed") and row["sd"] == pytest.approx(math.sqrt(18))
    assert rows()["no-3s"]["ours"] is None


def test_a_record_says_which_machine_made_which_value():
    here, there = machine.describe(), machine.describe() | {"torch": "9.9"}
    path = keep(values=(64, 66, 70), machines=[here, there], of_value=[[0], [0, 1], [1]])
    assert json.loads(path.read_text())["of_value"] == [[0], [0, 1], [1]]
    line = re.search(r"<tr id='teacher'>.*?</tr>", claims_page.of(records.judged(records.kept())))[0]
    assert "(seed 1, 2)" in line and "torch 9.9 (seed 2, 3)" in line
    for wrong in ([[0]], [[0], [1], [2]], [[0], [], [1]]):
        with pytest.raises(ValueError, match="of_value names for each of 3 values"):
            keep(values=(64, 66, 71), machines=[here, there], of_value=wrong)


def test_a_smaller_run_never_takes_a_larger_ones_place(elsewhere):
    own = keep(values=[70])
    assert keep(values=[300], profile="smoke") is None
    assert json.loads(own.read_text())["values"] == [70]
    full = keep(values=[66], profile="full")
    assert full == elsewhere / "results" / "claims" / "teacher.json"
    assert keep(values=[71]) == own
    assert records.kept()["teacher"]["values"] == [66]
    assert keep(values=[65], profile="full") == full
    assert records.kept()["teacher"]["values"] == [65]


def test_what_is_read_from_the_store_again_leaves_the_record_and_new_code_does_not():
    path = keep(code={"f": "old"}, seconds=50.0)
    first = path.read_bytes()
    assert keep(code={"f": "old"}, seconds=0.1) == path and keep(seconds=0.1) == path and path.read_bytes() == first
    keep(code={"f": "new"}, seconds=60.0)
    assert json.loads(path.read_text())["code"] == {"f": "new"}
    keep(code={"f": "new"}, settings={"lr": 0.1})
    assert json.loads(path.read_text())["settings"] == {"lr": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "techer"}, "no claim called 'techer'"),
        ({"values": []}, "one finite number a seed"),
        ({"values": [math.nan]}, "one finite number a seed"),
        ({"profile": "huge"}, "profile is one of"),
        ({"values": [10_001]}, "from 0 to 10000"),
        ({"id": "only-7-8", "values": [101]}, "from 0 to 100"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(elsewhere, change, message):
    with pytest.raises(ValueError, match=message):
        keep(**change)
    assert not list(elsewhere.rglob("*.json"))


def test_a_record_cut_short_is_named_and_an_interrupted_one_leaves_the_old(elsewhere, monkeypatch):
    path = keep(values=[70])
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        keep(values=[71])
    assert json.loads(path.read_text())["values"] == [70] and len(list(path.parent.iterdir())) == 1
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="run its notebook again"):
        records.kept()


def test_a_full_record_is_never_written_into_another_project(tmp_path, monkeypatch):
    """Which has folders called notebooks and results, too; without the checkout beside the package, as from a wheel."""
    project = tmp_path / "project"
    for name in ("notebooks", "results"):
        (project / name).mkdir(parents=True)
    monkeypatch.chdir(project / "notebooks")
    monkeypatch.setattr(place, "PACKAGE", tmp_path / "site-packages" / "kdlab")
    (tmp_path / "notebooks" / "profiles.yaml").unlink()  # of the fixture's course, which lies above
    assert keep(profile="full").parent == tmp_path / "store" / "claims"
    assert sorted(path.name for path in project.rglob("*")) == ["notebooks", "results"]
    monkeypatch.setattr(place, "PACKAGE", ROOT / "kdlab")
    assert records.folder("full") == ROOT / "results" / "claims"


@pytest.fixture
def notebook(elsewhere, monkeypatch):
    """A notebook of parameters and of one function, and a full profile for it."""
    parameters = "lr = 0.001\nseed = 0"
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": parameters},
        {"cell_type": "code", "metadata": {}, "source": "def student(T):\n    return T + lr"},
    ]
    for cell in cells:
        cell |= {"execution_count": None, "outputs": []}
    about = {
        "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    path = elsewhere / "notebooks" / "04_x.ipynb"
    path.write_text(json.dumps({"cells": cells} | about))
    path.with_name("profiles.yaml").write_text("full:\n  '04':\n    lr: 0.01\n")
    return path


def test_a_record_is_stale_once_its_code_or_settings_have_changed(notebook):
    code = sources.digests("04_x", ["student"])
    about = {"notebook": "04_x", "profile": "full", "settings": {"lr": 0.01, "seed": 5}, "code": code}
    record = json.loads(keep(**about).read_text())
    assert records.stale(record) == []
    assert records.stale(record | {"code": None}) == ["made before records kept a digest of their code"]
    assert records.stale(record | {"settings": {"lr": 0.02, "T": 8}}) == [
        "settings: lr 0.02 then, 0.01 now",
        "settings: T 8 then, none now",
    ]
    assert records.stale(record | {"settings": {"lr": 0.02}, "profile": "own"}) == []
    notebook.write_text(notebook.read_text().replace("T + lr", "T * lr"))
    assert records.stale(record) == ["changed since: 04_x:student"]
    notebook.with_name("profiles.yaml").write_text("full: {}\n")
    assert records.stale(record)[0] == "settings: lr 0.01 then, 0.001 now"
    notebook.unlink()
    assert records.stale(record) == ["there is no notebook 04_x any more"]


# Three columns


def test_a_comparison_shows_the_source_the_full_run_with_its_verdict_and_this_run():
    keep(values=[66, 70, 68], profile="full")
    shown = comparison.compare({"teacher": [100, 104], "hot-limit": [0.5]})
    whole = records.judge(claims.claim("teacher"), records.full("teacher"))
    assert shown.rows[0][1:] == ("67", f"68.0 ± 2.0 (3): confirmed {claims_page.STALE}", "102.0 ± 2.8 (2)")
    assert whole["verdict"] == "confirmed" and whole["stale"], "a record without the digest of its code"
    assert shown.rows[1][2:] == ("not yet run", "0.50 (1)") or shown.rows[1][3].startswith("0.5")
    assert "full run" in shown._repr_html_() and "<td" in shown._repr_html_() and "paper" in str(shown)
    with pytest.raises(ValueError, match="no claim called 'nothing'"):
        comparison.compare({"nothing": [1]})


def test_where_there_is_no_course_the_full_run_is_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "PACKAGE", tmp_path / "package")
    keep(values=[66], profile="full")
    carried = tmp_path / "package" / "results" / "claims"
    carried.mkdir(parents=True)
    (records.folder("full") / "teacher.json").rename(carried / "teacher.json")
    assert records.full("teacher")["values"] == [66] and records.full("gap-closed") is None


# The page


def test_the_page_says_what_the_rows_say_and_needs_nothing_else():
    keep()
    keep("student-alone", [400, 401])
    keep("share-size", [87.0], seconds=700.0)
    rows = records.judged(records.kept())
    text = claims_page.of(rows)
    assert not re.search(r"(src|href)=['\"](https?:|//)|<script|@import|url\(", text)
    line = re.search(r"<tr id='teacher'>.*?</tr>", text)[0]
    assert "67.0 ± 4.2 (2)" in line and ">confirmed †<" in line and line.count("<circle") == 2 and "04_mnist" in line
    assert ">not †<" in re.search(r"<tr id='student-alone'>.*?</tr>", text)[0]
    assert ">not yet run<" in re.search(r"<tr id='no-3s'>.*?</tr>", text)[0]
    assert ">confirmed by arithmetic †<" in re.search(r"<tr id='share-size'>.*?</tr>", text)[0]
    assert "12 min" not in text  # the clock of an unknown run
    table = claims_page.table(rows).splitlines()
    assert len(table) == 2 + len(claims.CLAIMS)
    said = {line.split(" | ")[1].split(" (")[0]: line for line in table[2:]}
    teacher = said[claims.claim("teacher").says]
    assert "| 67 | 67.0 ± 4.2 (2) | at most 75 | confirmed † |" in teacher
    assert "| 1/T² | – | -2.1 to -1.9 | not yet run |" in said["the gradient of the soft targets' term shrinks as 1/T²"]
    assert "3 of the 3 claims" in claims_page.legend(rows)
    assert "2 of the 2 claims" in text and "1 of the 1 claims" in text, "the paper's and those on BERT, each by itself"


def test_the_count_keeps_arithmetic_and_anothers_data_apart_and_adds_up():
    keep()
    keep("share-size", [87.0])
    kinds = [claim.kind for claim in claims.CLAIMS]
    said = claims_page.counted(records.judged(records.kept()))
    n_measured, n_arithmetic, n_others = (kinds.count(kind) for kind in ("measured", "arithmetic", "another's data"))
    assert said == (
        f"77 claims: {n_measured} measured (1 confirmed, {n_measured - 1} not yet run); {n_arithmetic} "
        f"true by arithmetic (1 confirmed, {n_arithmetic - 1} not yet run); {n_others} on other data than the "
        "paper's, not judged."
    )


def test_the_seconds_of_the_work_are_shown_where_its_code_is_known():
    keep(seconds=720.0, code={"kdlab.train.fit": "ab"})
    assert "12 min" in claims_page.of(records.judged(records.kept()))


def test_a_single_value_is_rounded_to_its_test_sets_error_and_has_no_plus_minus():
    keep("only-7-8", [42.0537])  # √(42 · 58 / 10,000) = 0.49
    assert claims_page.ours(rows()["only-7-8"]) == "42.05 (1)"


def test_dots_and_bands_stand_where_the_numbers_are():
    picture = claims_page._picture(claims.claim("student-alone"), [146.0, 200.0], width=100)
    first, second = (float(x) for x in re.findall(r"<circle cx='([\d.]+)'", picture))
    line = float(re.search(r"x='([\d.]+)' width='2'", picture)[1]) + 1
    assert first == pytest.approx(line, abs=0.2) and second > 90
    band = re.search(r"x='([\d.]+)' width='([\d.]+)' height='26' fill='#a9d6c4'", picture)
    low, wide = map(float, band.groups())
    assert low < first < low + wide < second


def test_report_prints_a_list_of_claims_as_json(elsewhere):
    keep()
    listed = json.loads(CliRunner().invoke(cli.app, ["report", "--json"]).stdout)
    teacher = next(row for row in listed if row["claim"] == "teacher")
    assert [*teacher] == ["claim", "section", "kind", "source", "value", "unit", "ours", "sd", "n", "verdict", "stale"]
    assert teacher["ours"] == statistics.fmean([64, 70]) and len(listed) == len(claims.CLAIMS)
    assert next(row for row in listed if row["claim"] == "no-3s")["ours"] is None
    assert not (elsewhere / "build").exists() and Path.cwd().name == "notebooks"


# What the full runs measured


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_full_record_has_all_that_it_must(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    keys = {"claim", "unit", "values", "profile", "notebook", "settings", "seconds", "made", "machines", "of_value"}
    assert record.keys() - {"code"} == keys
    assert record["claim"] == path.stem and record["unit"] == claims.claim(path.stem).unit
    assert record["profile"] == "full" and record["notebook"] in [notebook.stem for notebook in NOTEBOOKS]
    assert len(record["of_value"]) == len(record["values"]) > 0
    assert {i for indices in record["of_value"] for i in indices} == set(range(len(record["machines"])))
    for facts in record["machines"]:
        assert re.fullmatch(r"[\w.+]+", facts["torch"]) and facts["processor"] and facts["cores"] > 0
    assert record["seconds"] is None or record.get("code"), "seconds without a key may be the clock of any run"


def test_the_results_page_marks_the_stale_records_and_no_others(monkeypatch):
    """Lists them, too, as a warning: pytest shows it below the results."""
    monkeypatch.chdir(ROOT)
    reasons = {path.stem: records.stale(json.loads(path.read_text(encoding="utf-8"))) for path in RESULTS}
    stale = {id: "; ".join(why) for id, why in reasons.items() if why}
    if stale:
        by_reason = {why: [id for id in stale if stale[id] == why] for why in stale.values()}
        listed = "\n".join(f"{why}: {', '.join(ids)}" for why, ids in by_reason.items())
        warnings.warn(f"{len(stale)} of {len(reasons)} records are stale:\n{listed}", stacklevel=1)
    lines = (ROOT / "results" / "README.md").read_text(encoding="utf-8").splitlines()
    shown = {
        id: next(line for line in lines if f"| {claims.claim(id).says} ({claims.claim(id).unit}) |" in line)
        for id in reasons
    }
    marked = {id for id, line in shown.items() if line.endswith(f"{claims_page.STALE} |")}
    assert marked == set(stale), "`kdlab report` marks the records that are stale now"
