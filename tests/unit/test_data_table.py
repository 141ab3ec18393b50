from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.spec import load_data
from harness.errors import ConfigError

RNG = np.random.default_rng(0)
N = 100
AGES = RNG.integers(18, 80, N)
INCOMES = RNG.normal(1000, 100, N).round(3)


def rows(**columns):
    names = list(columns)
    lines = [",".join(names)]
    lines += [",".join(str(columns[name][i]) for name in names) for i in range(N)]
    return "\n".join(lines) + "\n"


def table(path, text=None, **columns):
    base = {"age": AGES, "income": INCOMES, "kind": ["x" if a > 50 else "y" for a in AGES]}
    path.write_text(text or rows(**(base | columns)))
    return str(path)


def refuse(spec, *words):
    with pytest.raises(ConfigError) as caught:
        load_data(str(spec))
    for word in words:
        assert word in str(caught.value)


def raw(split):
    """Return a split's unscaled rows."""
    return split.inputs if split.rows is None else split.inputs[split.rows]


def test_a_table_of_numbers(tmp_path):
    data = load_data(f"{table(tmp_path / 'people.csv')},label=kind")
    assert (data.name, data.kind, data.classes) == ("people", "classification", ("x", "y"))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [70, 15, 15]
    expected = np.stack([AGES, INCOMES], 1).astype(np.float32)
    assert np.array_equal(data.train.inputs.numpy(), expected)
    batch = data.train.batch(torch.arange(70))
    torch.testing.assert_close(batch.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    assert "2 features" in data.description


def test_regression_on_one_or_several_columns(tmp_path):
    path = table(tmp_path / "a.csv", a=RNG.normal(size=N), b=RNG.normal(size=N))
    one = load_data(f"{path},label=a")
    assert (one.kind, one.outputs, one.train.targets_of().dtype) == (
        "regression", 1, torch.float32)  # fmt: skip
    two = load_data(f"{path},label=a+b,drop=kind")
    assert two.outputs == 2
    assert two.train.sample_shape == (2,)


def test_texts_become_columns_and_truths_numbers(tmp_path):
    colours = ["red", "green", "blue"] * 33 + ["red"]
    path = table(tmp_path / "a.csv", colour=colours, rich=["True", "False"] * 50)
    data = load_data(f"{path},label=kind")
    assert data.train.sample_shape == (2 + 3 + 1,)
    hot = data.train.inputs[:, 2:5]
    assert torch.equal(hot.sum(1), torch.ones(N))
    assert hot[0].tolist() == [0, 0, 1]  # sorted: blue, green, red
    assert data.train.inputs[:2, 5].tolist() == [1, 0]
    assert any("colour: 3 categories" in note for note in data.notes)


def test_missing_values_are_filled_and_told(tmp_path):
    ages = [str(a) for a in AGES]
    colours = ["red", "green"] * 50
    for i in (3, 4, 5):
        ages[i] = ""
        colours[i] = ""
    data = load_data(f"{table(tmp_path / 'a.csv', age=ages, colour=colours)},label=kind")
    known = [AGES[i] for i in data.train.rows.tolist() if i not in (3, 4, 5)]
    assert data.train.inputs[3, 0] == pytest.approx(np.median(known))
    assert data.train.inputs[4, 2:].tolist() == [0, 0]
    notes = " ".join(data.notes)
    assert "age: 3 missing, set to the training median" in notes
    assert "3 missing (all zeros)" in notes


def test_categories_that_training_lacks_are_zeros(tmp_path):
    train = table(tmp_path / "a.csv", colour=["red", "green"] * 50)
    test = table(tmp_path / "b.csv", colour=["red", "mauve"] * 50, age=AGES + 1)
    data = load_data(f"train={train},test={test},label=kind")
    assert data.test.inputs[1, 2:].tolist() == [0, 0]
    assert any("50 rows with a category that the training split lacks" in n for n in data.notes)


def test_a_constant_column_does_no_harm(tmp_path):
    data = load_data(f"{table(tmp_path / 'a.csv', always=[7] * N)},label=kind")
    assert data.train.batch(torch.arange(70))[:, 2].abs().max() == 0


def test_other_separators_and_compression(tmp_path):
    text = rows(age=AGES, income=INCOMES, kind=["x", "y"] * 50)
    plain = load_data(f"{table(tmp_path / 'a.csv', text)},label=kind")
    semicolons = load_data(f"{table(tmp_path / 'b.csv', text.replace(',', ';'))},label=kind")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.encode()))
    packed = load_data(f"{tmp_path / 'c.csv.gz'},label=kind")
    tabs = load_data(f"{table(tmp_path / 'd.tsv', text.replace(',', chr(9)))},label=kind")
    for other in (semicolons, packed, tabs):
        assert torch.equal(other.train.inputs, plain.train.inputs)
    assert any("separated by ';'" in note for note in semicolons.notes)


def test_spaces_after_separators_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffkind, age\n" + "x, 1\ny, 2\nx, 3\ny, 4\n" * 25, encoding="utf-8")
    data = load_data(f"{path},label=kind")
    assert data.classes == ("x", "y")
    assert data.train.inputs[:4, 0].tolist() == [1, 2, 3, 4]


GAPS = [i for i in range(2 * N) if i % 7][:N]


@pytest.mark.parametrize("numbers", [range(N), GAPS, RNG.permutation(N)])
def test_a_nameless_row_number_is_left_out(tmp_path, numbers):
    columns = {"age": AGES, "kind": ["x", "y"] * 50}
    train = table(tmp_path / "a.csv", rows(**{"": numbers}, **columns))
    data = load_data(f"{train},label=kind")
    assert data.train.sample_shape == (1,)
    assert any("numbers the rows" in note for note in data.notes)
    for i, other in enumerate((columns, {"": range(N)} | columns, {"": ["a"] * N} | columns)):
        test = table(tmp_path / f"{i}.csv", rows(**other))
        assert load_data(f"train={train},test={test},label=kind").test.sample_shape == (1,)


def test_a_nameless_column_of_values_is_kept(tmp_path):
    for i, values in enumerate((AGES, INCOMES)):
        path = table(tmp_path / f"{i}.csv", rows(**{"": values}, kind=["x", "y"] * 50))
        assert load_data(f"{path},label=kind").train.sample_shape == (1,)


def test_texts_of_training_are_texts_as_written_elsewhere(tmp_path):
    codes = ["0", "01", "2", "True", "x"] * 20
    others = ["0", "01", "", "2", "2"] * 20
    train = table(tmp_path / "a.csv", rows(code=codes, kind=["x", "y"] * 50))
    test = table(tmp_path / "b.csv", rows(code=others, kind=["x", "y"] * 50))
    data = load_data(f"train={train},test={test},label=kind,normalize=none")
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]
    assert data.test.inputs[:5].tolist() == expected
    assert any("20 missing" in note for note in data.notes)
    assert any("80 of 100 test samples are also" in note for note in data.notes)


@pytest.mark.parametrize(("yes", "no"), [("TRUE", "FALSE"), ("true", "false"), ("True", "False")])
def test_truth_values_beside_a_gap_are_those_of_a_table_without(tmp_path, yes, no):
    flags = [yes, no] * (N // 2)
    train = table(tmp_path / "a.csv", rows(flag=[*flags[:-1], ""], x=AGES, kind=["x", "y"] * 50))
    test = table(tmp_path / "b.csv", rows(flag=flags, x=AGES + 100, kind=["x", "y"] * 50))
    data = load_data(f"train={train},test={test},label=kind,normalize=none")
    assert data.test.inputs[:2, :2].tolist() == [[0, 1], [1, 0]]


def test_rows_may_be_named_as_r_does(tmp_path):
    """One cell more than the header has names: pandas takes the first for the row's name."""

    def named(path, codes):
        lines = [f"{i},{i / 10},{codes[i % len(codes)]},{'xy'[i % 2]}" for i in range(N)]
        path.write_text("\n".join(["age,code,kind", *lines]) + "\n")
        return path

    train, test = named(tmp_path / "a.csv", ["1", "2", "z"]), named(tmp_path / "b.csv", ["2", "1"])
    data = load_data(f"train={train},test={test},label=kind,normalize=none")
    assert data.test.inputs[:2, 1:].tolist() == [[0, 1, 0], [1, 0, 0]]


def test_classes_may_be_called_as_missing_values_are(tmp_path):
    path = table(tmp_path / "a.csv", kind=["None", "NA", "null", "x"] * 25)
    data = load_data(f"{path},label=kind")
    assert data.classes == ("NA", "None", "null", "x")
    assert any("25 rows are of a class called 'NA' (kind)" in note for note in data.notes)
    for i, kinds in enumerate((["None", "x", "", "x"] * 25, [1, 2, "NA", 3] * 25)):
        path = table(tmp_path / f"{i}.csv", kind=kinds)
        refuse(f"{path},label=kind", "25 of 100 rows have no target (kind): rows 3, 7")


def test_the_order_of_columns_is_part_of_the_identity(tmp_path):
    columns = {"age": AGES, "kind": ["x", "y"] * 50, "income": INCOMES}
    one, other, same = (
        load_data(f"{table(tmp_path / f'{i}.csv', rows(**dict(items)))},label=kind,normalize=none")
        for i, items in enumerate((
            columns.items(), reversed(columns.items()), sorted(columns.items())
        ))
    )  # fmt: skip
    assert torch.equal(one.train.rows, other.train.rows)
    assert one.sha256 == same.sha256 != other.sha256


def test_repeated_rows_stay_together(tmp_path):
    ages, kinds = AGES.copy(), np.array(["x", "y"] * 50)
    incomes = INCOMES.copy()
    ages[1::4], incomes[1::4], kinds[1::4] = ages[0::4], incomes[0::4], kinds[0::4]
    data = load_data(f"{table(tmp_path / 'a.csv', age=ages, income=incomes, kind=kinds)},"
                     "label=kind")  # fmt: skip
    sets = [{tuple(r) for r in raw(s).tolist()} for s in (data.train, data.validation, data.test)]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert any("25 of 100 samples repeat" in note for note in data.notes)
    assert not any("flattered" in note for note in data.notes)


def test_a_table_of_few_different_rows_is_still_divided(tmp_path):
    text = rows(coin=["h", "t"] * 50, kind=["x", "x", "y", "y"] * 25)
    data = load_data(f"{table(tmp_path / 'a.csv', text)},label=kind")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [70, 15, 15]
    assert any("too many to keep" in note for note in data.notes)


def test_bad_tables(tmp_path):
    path = table(tmp_path / "a.csv", colour=["red"] * N)
    refuse(path, "label=COLUMN", "age, income, kind, colour")
    refuse(f"{path},label=kin", "no column 'kin' (label=)")
    refuse(f"{path},label=kind,drop=hue", "no column 'hue' (drop=)")
    refuse(f"{path},label=kind,drop=age+income+colour", "no columns left")
    refuse(f"{path},label=age+kind", "must all be numbers")
    gaps = ["x", "y"] * 50
    gaps[3] = gaps[9] = ""
    gap = table(tmp_path / "gap.csv", kind=gaps)
    refuse(f"{gap},label=kind", "2 of 100 rows have no target (kind): rows 4, 10 below the header")
    names = table(tmp_path / "names.csv", name=[f"n{i}" for i in range(N)])
    refuse(f"{names},label=kind", "'name' 70", "drop=name")
    empty = table(tmp_path / "empty.csv", hole=[""] * N)
    refuse(f"{empty},label=kind", "'hole' is empty", "drop=hole")
    held_out = int(load_data(f"{path},label=kind").test.rows[0])
    rare = table(tmp_path / "rare.csv", hue=["red" if i == held_out else "" for i in range(N)])
    refuse(f"{rare},label=kind", "'hue' is empty", "drop=hue")
    endless = table(tmp_path / "inf.csv", x=["inf", *range(N - 1)])
    refuse(f"{endless},label=kind", "infinite", "row 1 below the header")
    ragged = table(tmp_path / "ragged.csv", "a,b\n1,2\n1,2,3,4\n")
    refuse(f"{ragged},label=a", "no readable CSV", "line 3")
    refuse(f"{table(tmp_path / 'none.csv', chr(10))},label=a", "no readable CSV")
    refuse(f"{table(tmp_path / 'head.csv', 'a,b' + chr(10))},label=a", "no rows")
    twice = table(tmp_path / "twice.csv", "a,b,a \n" + "1,x,2\n" * 50)
    refuse(f"{twice},label=b", "several columns called 'a'", "Rename")
    packed = bytearray(gzip.compress(rows(age=AGES, kind=INCOMES).encode()))
    packed[200:240] = bytes(40)
    damaged = tmp_path / "damaged.csv.gz"
    damaged.write_bytes(packed)
    refuse(f"{damaged},label=kind", "no readable CSV")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("größe,b\n1,2\n".encode("latin-1"))
    refuse(f"{latin},label=b", "UTF-8")
    few = table(tmp_path / "few.csv", "a,b\n" + "1,x\n2,y\n" * 10)
    refuse(f"{few},label=b", "at least 10 samples", "train 14")


def test_tables_that_do_not_fit_each_other(tmp_path):
    train = table(tmp_path / "a.csv")
    refuse(f"train={train},test={table(tmp_path / 'b.csv', age=['old'] * N)},label=kind",
           "'age' holds numbers in the training table")  # fmt: skip
    short = table(tmp_path / "c.csv", rows(age=AGES, kind=["x", "y"] * 50))
    refuse(f"train={train},test={short},label=kind", "test table lacks columns", "income")


def test_columns_say_how_features_are_made_of_a_row(tmp_path):
    ages = ["" if i in (3, 40) else str(a) for i, a in enumerate(AGES)]
    colours = ["", *["red", "green", "blue"] * 33]
    path = table(tmp_path / "a.csv", colour=colours, age=ages, rich=["True", "False"] * 50)
    data = load_data(f"{path},label=kind")
    assert data.target_names == ("kind",)
    assert [column.name for column in data.columns] == ["age", "income", "colour", "rich"]
    for i, row in enumerate(csv.DictReader(Path(path).read_text().splitlines())):
        made = []
        for column in data.columns:
            cell = row[column.name]
            if column.categories:
                made += [float(cell == text) for text in column.categories]
            else:
                number = {"True": 1.0, "False": 0.0, "": column.missing}.get(cell)
                made.append(float(cell) if number is None else number)
        assert torch.equal(data.train.inputs[i], torch.tensor(made))


def test_other_data_have_no_columns(tmp_path):
    np.savez(tmp_path / "a.npz", x=RNG.normal(size=(N, 3)), y=RNG.normal(size=N))
    assert load_data(f"{tmp_path / 'a.npz'}").columns == ()
