"""Every printed average is recomputed from its rows; each misprint carries a note, and each note explains something."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pnilib.errors import PNIError
from pnilib.published import FOLDER, GROUPS, NOTES, TABLES, averages, best_two, load_published, note_kinds, repeats

KEYS = ["method", "dataset", "category", "metric"]
SETTINGS = [*"ABCDEFGHIJKL", "PNI", "PNI (ensemble)"]

# the table of part E of the audit: rows x columns as printed; 18 rows are 15 categories and 3 averages
CELLS = {
    "Table 1": 18 * 16, "Table 2": 23 * 5, "Table 3": 4 * (9 + 3), "Table 4": 3 * 5, "Table 5": 4 * 5, "Table 6": 2 * 8,
    "Table S1": 10, "Table S2": 24 * 9, "Table S3": 18 * 10, "Table S4": 18 * 14, "Table S5": 18 * 15,
    "Table S6": 2 * 16, "Table S7": 14 * 10, "Table S8": 14 * 9, "Table S9": 18 * 14, "Table S10": 18 * 14,
    "Table S11": 18 * 14, "SegAD Table 1": 21, "SegAD Table 2": 7 * 13, "SegAD Table 3": 7 * 16,
    "NSA Table 4": 17 * 13, "NSA Table 5": 6 * 6, "NSA Table 6": 3 * 3, "NSA Table 7": 18 * 10, "NSA Table 8": 18 * 7,
}  # fmt: skip
# of them with a number
NUMBERS = CELLS | {
    "Table 2": 86, "Table 3": 4 * 9, "Table S1": 0, "Table S2": 162, "Table S3": 18 * 10 - 15 - 2, "Table S7": 14,
    "SegAD Table 1": 0, "NSA Table 4": 17 * 13 - 7 * 4, "NSA Table 5": 0, "NSA Table 6": 0,
    "NSA Table 7": 18 * 10 - 2 * (2 + 5 + 3),
}  # fmt: skip

# typed by hand from the papers' text
SPOT = """
Table 1|CFLOW-AD|cable|i_auroc|97.59
Table 1|CFLOW-AD|cable|p_auroc|97.64
Table 1|RIAD|bottle|i_auroc|99.9
Table 1|PNI|average|p_auroc|98.98
Table 1|Tsai et al.|wood|p_auroc|97.5
Table 2|SPADE|average|i_auroc|85.5
Table 2|IKD|texture|aupro_30|91.05
Table 2|PatchCore (ensemble)|average|aupro_30|94.9
Table 3|A|average|p_f1_max|57.08
Table 3|B|object|p_f1_max|67.91
Table 3|E|texture|i_auroc|99.46
Table 3|PNI|texture|p_f1_max|61.23
Table 3|E|||position ✓
Table 3|E|||refinement -
Table 4|Trained by l_CE|average|i_auroc|99.56
Table 4|Trained by l_focal|texture|aupro_30|96.11
Table 4|PNI (ensemble)|object|aupro_30|96.83
Table 5|PNI|01|p_auroc|97.4
Table 5|VT-ADL|02|p_auroc|88.9
Table 5|FastFlow|average|p_auroc|97
Table 6|SPD|multiple_instances|i_auroc|78.4
Table 6|PNI|average|i_auroc|95.2
Table 6|PNI|complex_structure|p_auroc|99.0
Table S1|PatchCore|||model PatchCore-25%
Table S1|CFLOW-AD|||model WideResNet-50
Table S1|FCDD|||model Unsupervised FCDD
Table S2|DRÆM|average|p_auroc|97.3
Table S2|CFLOW-AD|texture|aupro_30|96.65
Table S2|FCDD|object|p_auroc|95
Table S3|PNI|grid|i_auroc|98.41
Table S3|NSA|screw|i_auroc|90.2
Table S3|PNI (ensemble)|zipper|i_auroc|98.89
Table S4|IKD|bottle|p_auroc|98.99
Table S4|CDO|wood|p_auroc|95.85
Table S4|NSA|transistor|p_auroc|88.0
Table S5|SOMAD|texture|aupro_30|99.4
Table S5|Uninformed Students|transistor|aupro_30|66.6
Table S5|CFLOW-AD|bottle|aupro_30|96.80
Table S6|PNI|macaroni2|i_auroc|74.34
Table S6|PNI|pcb4|p_auroc|98.35
Table S6|PNI|average|i_auroc|95.21
Table S7|C|||subsampling_ratio 0.0025
Table S7|F|||subsampling_ratio 0.02
Table S7|L|||loss_grad -
Table S7|H|||cutpaste_scar ✓
Table S8|A|texture|aupro_30|85.09
Table S8|PNI (ensemble)|average|p_auroc|99.06
Table S8|J|texture|i_auroc|99.59
Table S9|C|toothbrush|i_auroc|86.39
Table S9|A|carpet|i_auroc|96.99
Table S9|PNI (ensemble)|zipper|i_auroc|99.89
Table S10|B|transistor|p_auroc|95.67
Table S10|A|wood|p_auroc|94.12
Table S10|PNI|average|p_auroc|98.98
Table S11|A|carpet|aupro_30|71.94
Table S11|PNI|transistor|aupro_30|96.24
Table S11|K|tile|aupro_30|93.65
SegAD Table 1||defect_01||description The wire is too close to the side of the soldering
SegAD Table 1||defect_19||description Piezo is broken
SegAD Table 1||defect_21||description Various rare defects
SegAD Table 2|RD4AD|capsules|cl_auroc|85.4
SegAD Table 2|DevNet|average|cl_auroc|89.3
SegAD Table 2|All AD + Ours|pipe_fryum|cl_auroc|99.4
SegAD Table 3|FastFlow|hazelnut|cl_auroc|78.4
SegAD Table 3|FastFlow + Ours|cable|cl_auroc|71.6
SegAD Table 3|All AD + Ours|average|cl_auroc|98.4
NSA Table 4|NSA|screw|w_max|0.24
NSA Table 4|NSA|metal_nut|k|1/3
NSA Table 4|NSA|cable|b|N/A
NSA Table 4|NSA|male|t_overlap|0.70
NSA Table 5|PII|||blending_mode seamless cloning
NSA Table 5|CutPaste|||resize_patch_before_blending ✗
NSA Table 5|NSA (continuous)|||loss MSE-loss
NSA Table 6|CutPaste|||patch_aspect_ratio sampled from (0.3, 1) ∪ (1, 3.3)
NSA Table 6|FPI and PII|||location_restrictions patch center must lie within 80% of the image dimensions
NSA Table 6|Ours|||patch_aspect_ratio truncated by any ratio resulting from the above
NSA Table 7|NSA (logistic) C|wood|p_auroc|78.56 ± 2.0
NSA Table 7|NSA (logistic) A|screw|i_auroc|77.8 ± 3.3
NSA Table 7|NSA (logistic) A|cable|i_auroc|-
NSA Table 7|NSA (logistic) final|screw|i_auroc_error|1.4
NSA Table 8|PaDiM|bottle|aupro_30|94.8
NSA Table 8|FPI|carpet|aupro_30|21.6
NSA Table 8|NSA (continuous)|screw|aupro_30|80.6 ± 10.3
""".strip().splitlines()


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    return load_published()


@pytest.fixture(scope="module")
def checked(cells: pd.DataFrame) -> pd.DataFrame:
    return averages(cells)


def as_printed(cells: pd.DataFrame, table: str, method: str, metric: str) -> pd.Series:
    return cells[(cells[["table", "method", "metric"]] == [table, method, metric]).all(axis=1)].set_index("category")[
        "printed"
    ]


def test_each_table_has_its_cells(cells: pd.DataFrame) -> None:
    printed = cells[~cells["metric"].str.endswith("_error")]
    assert printed.groupby("table").size().to_dict() == CELLS
    assert printed.groupby("table")["value"].count().to_dict() == NUMBERS
    assert set(TABLES) == set(CELLS)
    assert sorted(path.stem for path in FOLDER.glob("*.csv")) == sorted(
        name.lower().replace(" ", "_") if name[:5] != "Table" else f"pni_{name.lower().replace(' ', '_')}"
        for name in TABLES
    )


def test_each_cell_is_what_it_says(cells: pd.DataFrame) -> None:
    """Each table is a full grid, percentages are percentages, text has no number, and no markup is left."""
    for table, part in cells[~cells["metric"].str.endswith("_error")].groupby("table"):
        full = part.groupby("metric", sort=False)
        assert len({frozenset(zip(one["method"], one["category"], strict=True)) for _, one in full}) <= 2, table
    percent = cells["metric"].isin(["i_auroc", "p_auroc", "aupro_30", "p_f1_max", "cl_auroc"])
    assert cells.loc[percent, "value"].dropna().between(20, 100).all()
    assert cells.loc[cells["metric"].str.endswith("_error"), "value"].between(0, 100).all()
    assert not cells.loc[percent & cells["value"].isna(), "printed"].ne("-").any()
    assert not cells["printed"].str.contains(r"[<>$\\*]|\[\d").any() and (cells["printed"] != "").all()
    known = {name for groups in GROUPS.values() for names in groups.values() for name in names} | {
        name for groups in GROUPS.values() for name in groups
    }
    assert set(cells.loc[percent, "category"]) <= known | {"average"}
    for table in ("Table S7", "Table S8", "Table S9", "Table S10", "Table S11"):
        assert list(dict.fromkeys(cells.loc[cells["table"] == table, "method"])) == SETTINGS
    assert list(dict.fromkeys(cells.loc[cells["table"] == "Table 3", "method"])) == ["A", "B", "E", "PNI"]


def test_spot_values(cells: pd.DataFrame) -> None:
    """At least three a table."""
    for line in SPOT:
        table, method, category, metric, printed = line.split("|")
        if not metric:  # text: its metric and the text stand together
            metric, _, printed = printed.partition(" ")
        assert as_printed(cells, table, method, metric)[category] == printed, line
    spots = [line.split("|")[0] for line in SPOT]
    assert all(spots.count(table) >= 3 for table in TABLES)


PAPERS = Path(__file__).parents[2] / "shared" / "paper"
DAMAGED = {("Table S9", "bottle"), ("NSA Table 8", "texture"), ("Table 5", "01"), ("Table 5", "02"), ("Table 5", "03"),
           ("Table 5", "average")}  # fmt: skip
ROWS_OF = {"Table S6": "metric"} | dict.fromkeys(("Table 2", "Table 3", "Table 4", "Table S2", "Table S8"), "method")
ROWS_OF |= dict.fromkeys(("Table S7", "SegAD Table 2", "SegAD Table 3"), "method")


def test_every_row_of_numbers_stands_in_the_papers_text(cells: pd.DataFrame) -> None:
    """By another way than the transcription: the row's cells, joined, must be found in the text, in this order."""
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not here")
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(PAPERS.glob("*.txt")))
    text = " ".join(re.sub(r"</?[bui]>|\*", "", text).replace(",", " ").split())
    printed = cells[~cells["metric"].str.endswith("_error")]
    n_rows = 0
    for table, part in printed[printed["table"].map(NUMBERS) > 0].groupby("table", sort=False):
        part = part[part["value"].notna() | (part["table"] != "Table 3")]  # its marks are 1 in the text
        for name, row in part.groupby(ROWS_OF.get(str(table), "category"), sort=False):
            if table != "Table 6" and (table, name) not in DAMAGED:
                n_rows += 1
                assert " ".join(row["printed"]) in text, (table, name)
    assert n_rows == 23 + 4 + 3 + 24 + 2 + 14 + 14 + 7 + 7 + 17 + 18 * 9 - 2


def test_averages_by_hand() -> None:
    cells = load_published("Table 5")
    found = averages(cells).set_index("method")
    assert found.loc["VT-ADL", "recomputed"] == pytest.approx((76.3 + 88.9 + 80.3) / 3)
    assert found["tolerance"].tolist() == pytest.approx([0.05, 0.05, 0.5, 0.05, 0.05])  # FastFlow prints whole numbers
    rounded = cells.assign(printed=cells["printed"].replace({"81.8": "81.9"}), value=cells["value"].replace(81.8, 81.9))
    assert averages(rounded).set_index("method")["verdict"].to_dict() == {
        "VT-ADL": "differs", "P-SVDD": "agrees", "FastFlow": "agrees", "Tsai et al.": "agrees", "PNI": "agrees",
    }  # fmt: skip
    summary = averages(load_published("Table 3"))  # sub-averages alone: 10 to 5, and their rounding is forgiven
    one = summary[(summary["method"] == "A") & (summary["metric"] == "p_f1_max")].iloc[0]
    assert (one["recomputed"], one["tolerance"]) == (pytest.approx((2 * 60.06 + 49.92) / 3), pytest.approx(0.01))
    assert (one["verdict"], one["category"]) == ("differs", "average")
    cut = (
        averages(load_published("Table 1")).query("method == 'CutPaste' and metric == 'i_auroc'").set_index("category")
    )
    assert cut["verdict"].to_dict() == {"object": "truncated", "texture": "agrees", "average": "agrees"}


def test_best_two_by_hand() -> None:
    assert best_two([99.1, 99.6, 99.6, 98.0]) == [2, 1, 1, 0]
    assert best_two([float("nan"), 5.0]) == [0, 1] and best_two([]) == []


def test_every_printed_average_agrees_or_has_a_note(checked: pd.DataFrame) -> None:
    assert len(checked) == 496
    assert checked["verdict"].value_counts().to_dict() == {
        "agrees": 467,
        "differs": 13,
        "unchecked": 10,
        "truncated": 6,
    }
    assert checked["explained"].all(), checked[~checked["explained"]].to_string()
    of_rows = cells_of(checked, "verdict", {"differs", "truncated"})
    assert of_rows == cells_of(checked, "note", {"average"})


def cells_of(frame: pd.DataFrame, column: str, wanted: set[str]) -> set[tuple[str, ...]]:
    chosen = [bool(wanted & (note_kinds(text) if column == "note" else {text})) for text in frame[column]]
    return set(frame.loc[chosen, ["table", *KEYS]].itertuples(index=False, name=None))


def test_every_note_explains_something(cells: pd.DataFrame, checked: pd.DataFrame) -> None:
    """By kind of note: the misprint that it speaks of is really there."""
    noted = cells[cells["note"] != ""]
    assert all(note_kinds(note) and note.endswith(".") for note in noted["note"])
    wrong = cells_of(checked, "verdict", {"differs", "truncated"})
    assert cells_of(noted, "note", {"average"}) == wrong
    assert cells_of(noted, "note", {"unchecked"}) <= cells_of(checked, "verdict", {"unchecked"})

    pairs = repeats(cells)
    apart = pairs[~pairs["same"]]
    either = {(t, *k) for t, *k in apart[["table", *KEYS]].itertuples(index=False, name=None)}
    either |= {(t, *k) for t, *k in apart[["other_table", *KEYS]].itertuples(index=False, name=None)}
    assert cells_of(noted, "note", {"twice"}) <= either
    for _, pair in apart.iterrows():
        assert "twice" in note_kinds(pair["note"]) | note_kinds(pair["other_note"]), pair.to_dict()

    for table, method, dataset, category, metric in cells_of(noted, "note", {"see"}):
        text = noted[(noted[["table", *KEYS]] == [table, method, dataset, category, metric]).all(axis=1)]["note"].item()
        other = text.removeprefix("see: ").partition(",")[0]
        assert (other, method, dataset, category, metric) in wrong
        both = {as_printed(cells, one, method, metric)[category] for one in (table, other)}
        assert len(both) == 1  # the same misprint

    for table, method, _, category, metric in cells_of(noted, "note", {"rounding"}):
        short, long = (float(as_printed(cells, one, method, metric)[category]) for one in (table, "Table S5"))
        assert abs(abs(short - long) - 0.05) < 1e-9
    for table, method, _, category, metric in cells_of(noted, "note", {"mark"}):
        row = cells[(cells[["table", "category", "metric"]] == [table, category, metric]).all(axis=1)].set_index(
            "method"
        )
        place = dict(zip(row.index, best_two(row["value"].tolist()), strict=True))
        claimed = 1 if "bold as the best" in row["note"][method] else 2
        assert place[method] == 0 or place[method] == 2 > claimed
        better = [name for name, one in place.items() if one == claimed and name in row["note"][method]]
        assert len(better) == 1 and f"{better[0]} has {row['printed'][better[0]]}" in row["note"][method]
    assert {key[1] for key in cells_of(noted, "note", {"spelling"})} == {"Uninformed Students"}
    assert len(cells_of(noted, "note", {"lost"})) == 4
    assert set().union(*map(note_kinds, noted["note"])) == set(NOTES)


def test_lost_cells_are_the_only_ones_that_fit(cells: pd.DataFrame) -> None:
    """S9's bottle row reads 100 (six times), 99.92, 100 (six times): one of 14 cells is lost. Whose is the 99.92?"""
    table = cells[cells["table"] == "Table S9"]
    fits = []
    for method in SETTINGS:
        value = table["value"].where(
            table["category"] != "bottle", (table["method"] == method).map({True: 99.92, False: 100.0})
        )
        found = averages(table.assign(value=value))
        fits.append(int((found["verdict"] != "agrees").sum()))
    assert SETTINGS[fits.index(min(fits))] == "H" and sorted(fits)[:2] == [4, 6]  # 4: those of J and K
    assert as_printed(cells, "Table S9", "H", "i_auroc")["bottle"] == "99.92"
    rows = as_printed(cells, "NSA Table 8", "NSA (logistic)", "aupro_30")
    assert round(sum(float(rows[name].split()[0]) for name in GROUPS["mvtec"]["texture"]) / 5, 1) == 92.2
    assert {as_printed(cells, one, "NSA", "aupro_30")["texture"] for one in ("Table 2", "Table S2", "Table S5")} == {
        rows["texture"]
    }


def test_exchanged_grid_cells_would_mend_settings_j_and_k(cells: pd.DataFrame) -> None:
    table = cells[cells["table"] == "Table S9"].reset_index(drop=True)
    grid = table[(table["category"] == "grid") & table["method"].isin(["J", "K"])].index
    assert table.loc[grid, "printed"].tolist() == ["98.58", "98.41"]
    table.loc[grid, "value"] = table.loc[grid, "value"].to_numpy()[::-1]
    assert (averages(table)["verdict"] == "agrees").all()


# pairs of tables that print the same numbers -> how many cells they share, how many of those differ, (method, category)
SHARED = {
    ("Table S2", "Table S3"): (29, set()),
    ("Table S2", "Table S4"): (42, set()),
    ("Table S2", "Table S5"): (45, {("SOMAD", "texture"), ("SOMAD", "average")}),
    ("Table S8", "Table S9"): (42, set()),
    ("Table S8", "Table S10"): (42, set()),
    ("Table S8", "Table S11"): (42, set()),
    ("Table 3", "Table S8"): (24, {("E", "object"), ("E", "texture"), ("E", "average")}),
    ("Table 2", "Table S2"): (86, set()),
    ("Table 2", "Table 4"): (5, set()),
    ("Table 6", "Table S6"): (8, set()),
    ("Table S3", "Table S9"): (36, {("PNI (ensemble)", "zipper")}),
    ("Table S4", "Table S10"): (36, set()),
    ("Table S5", "Table S11"): (36, set()),
    ("Table 1", "Table S2"): (
        48,
        {("CFLOW-AD", "object"), ("CFLOW-AD", "texture"), ("CFLOW-AD", "average"), ("InTra", "object"),
         ("CutPaste", "object")},
    ),
    ("Table S5", "NSA Table 8"): (36, {("PaDiM", "texture")}),
}  # fmt: skip


@pytest.mark.parametrize("tables", SHARED, ids=" and ".join)
def test_tables_that_repeat_each_other(cells: pd.DataFrame, tables: tuple[str, str]) -> None:
    final = {"NSA (logistic)": "NSA", "NSA (logistic) final": "NSA"}  # Table S1: the model compared
    chosen = cells[cells["table"].isin(tables) & ~cells["metric"].str.endswith("_error")]
    pairs = repeats(chosen.assign(method=chosen["method"].replace(final)))
    apart = pairs.loc[~pairs["same"], ["method", "category"]]
    assert (len(pairs), set(apart.itertuples(index=False, name=None))) == SHARED[tables]


def test_numbers_of_nsa_are_nsas_own(cells: pd.DataFrame) -> None:
    for table, metric, source, method in (
        ("Table S3", "i_auroc", "NSA Table 7", "NSA (logistic) final"),
        ("Table S4", "p_auroc", "NSA Table 7", "NSA (logistic) final"),
        ("Table S5", "aupro_30", "NSA Table 8", "NSA (logistic)"),
    ):
        ours = as_printed(cells, table, "NSA", metric).map(float)
        theirs = as_printed(cells, source, method, metric).map(lambda text: float(text.split()[0]))
        assert len(ours) == 18 and ours.to_dict() == theirs.to_dict()


def test_table_1_repeats_pni_of_s3_and_s4(cells: pd.DataFrame) -> None:
    for metric, table in (("i_auroc", "Table S3"), ("p_auroc", "Table S4")):
        summary, full = (as_printed(cells, one, "PNI", metric) for one in ("Table 1", table))
        assert len(summary) == 18 and summary.to_dict() == full.to_dict()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace(",99.59,99.59,", ",99.95,99.59,"), "value '99.95' is not what is printed, '99.59'"),
        (lambda text: text.replace(",99.59,99.59,", ",much,99.59,"), "value 'much' is not what is printed"),
        (lambda text: text.replace(",99.59,99.59,", ",,99.59,"), "value '' is not what is printed"),
        (lambda text: text.replace("printed", "shown"), "its columns are not table,method,"),
        (lambda text: text.replace("Table 3", "Table 4"), "holds rows of another table"),
        (lambda text: text.splitlines()[0], "holds rows of another table than Table 3, or none"),
        (lambda text: text + text.splitlines()[4] + "\n", "has one cell twice"),
        (lambda text: text[: text.rindex(",67.01")], "value '67.01' is not what is printed, ''"),
        (lambda text: text + "a,b,c,d,e,f,g,h,i\n", "cannot be read"),
        (lambda text: "", "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage, says: str) -> None:
    path = tmp_path / "pni_table_3.csv"
    text = (FOLDER / path.name).read_text(encoding="utf-8")
    changed = damage(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(PNIError) as caught:
        load_published("Table 3", tmp_path)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_table(tmp_path: Path) -> None:
    with pytest.raises(PNIError, match=r"pni_table_1\.csv: is missing"):
        load_published(folder=tmp_path)
    (tmp_path / "pni_table_1.csv").write_bytes(b"table,\xff\xfe\n")
    with pytest.raises(PNIError, match=r"pni_table_1\.csv: cannot be read"):
        load_published("Table 1", tmp_path)
    with pytest.raises(PNIError, match=r"'Table 12': is no published table: choose one of Table 1, Table 2"):
        load_published("Table 12")


def test_a_wrong_cell_is_found_by_its_average(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")
    path = tmp_path / "copy" / "pni_table_s11.csv"
    text = path.read_text(encoding="utf-8")
    assert text.count("carpet,aupro_30,94.82,94.82") == 1
    path.write_text(text.replace("carpet,aupro_30,94.82,94.82", "carpet,aupro_30,94.28,94.28"), encoding="utf-8")
    found = averages(load_published("Table S11", tmp_path / "copy"))
    assert found.loc[~found["explained"], ["method", "category"]].to_numpy().tolist() == [["B", "texture"]]
