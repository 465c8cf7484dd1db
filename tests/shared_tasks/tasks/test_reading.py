"""Rows of data sets: every format reads alike, and what is wrong is named with its file and line."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pyarrow.parquet
import pytest

from shared_tasks.tasks.reading import DataError, Row, as_schema, find_files, read_file

ROWS = [{"question": "One, two?", "answer": "3"}, {"question": "Zwei\nZeilen – «ü»", "answer": "2020-01-01"}]


class Question(msgspec.Struct):
    """Two texts and a list."""

    question: str
    answer: str
    choices: list[str] = []


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class TestFormats:
    @pytest.mark.parametrize("suffix", ["jsonl", "json", "array.json", "csv", "parquet"])
    def test_every_format_reads_alike(self, tmp_path: Path, suffix: str) -> None:
        """JSON lines, a JSON array, CSV and parquet give the same rows; a date stays a text."""
        path = tmp_path / f"data.{suffix}"
        if suffix == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
        elif suffix == "csv":
            written(path, 'question,answer\n"One, two?",3\n"Zwei\nZeilen – «ü»",2020-01-01\n')
        else:
            written(path, json.dumps(ROWS, indent=2) if "array" in suffix else lines(ROWS))
        assert [row.values for row in read_file(path)] == ROWS

    def test_cells_stay_what_they_are(self, tmp_path: Path) -> None:
        """A cell of CSV is a text: "None" and "NA" are answers, and 1.50 is not 1.5."""
        path = written(tmp_path / "data.csv", "question,answer\nWhich?,None\nWho?,NA\nHow much?,1.50\n")
        assert [row.values["answer"] for row in read_file(path)] == ["None", "NA", "1.50"]

    def test_csv_without_a_header_takes_the_columns_given(self, tmp_path: Path) -> None:
        """Columns name the cells of a file without a header, and do not hide the first row of one that has it."""
        bare = written(tmp_path / "bare.csv", "What?,a\nWho?,b\n")
        titled = written(tmp_path / "titled.csv", "answer,question\na,What?\n")
        assert [row.values for row in read_file(bare, ["question", "answer"])] == [
            {"question": "What?", "answer": "a"},
            {"question": "Who?", "answer": "b"},
        ]
        assert [row.values for row in read_file(titled, ["question", "answer"])] == [
            {"question": "What?", "answer": "a"}
        ]

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path) -> None:
        """A file that begins with a byte order mark reads as without it."""
        path = written(tmp_path / "data.jsonl", b"\xef\xbb\xbf" + lines(ROWS).encode())
        assert [row.values for row in read_file(path)] == ROWS


class TestPlaces:
    def test_blank_lines_count(self, tmp_path: Path) -> None:
        """The place of a row is its line in the file, blank ones counted."""
        path = written(tmp_path / "data.jsonl", '\n{"a": 1}\n\n\n{"a": 2}\n')
        assert [row.place for row in read_file(path)] == [f"{path}, line 2", f"{path}, line 5"]

    def test_rows_of_an_array_have_lines_too(self, tmp_path: Path) -> None:
        """The place of an element of a JSON array is the line on which it begins, for equal elements too."""
        path = written(tmp_path / "data.json", '[\n {"a": 1},\n {"a":\n 2}, {"a": 1}\n]')
        assert [row.place for row in read_file(path)] == [f"{path}, line {line}" for line in (2, 3, 4)]

    def test_cells_of_several_lines_are_counted(self, tmp_path: Path) -> None:
        """The place of a row of CSV is the line on which it begins."""
        path = written(tmp_path / "data.csv", 'question,answer\n"a\nb",1\nc,2\n')
        assert [row.place for row in read_file(path)] == [f"{path}, line 2", f"{path}, line 4"]


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("data.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
            ("data.jsonl", b'{"a": 1}\n\n[1]\n', "line 3: expected a JSON object, got a list"),
            ("data.jsonl", b'{"a": 1}\n"text"\n', "line 2: expected a JSON object, got a text"),
            ("data.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n', "line 2: expected UTF-8, got the byte 0xff"),
            ("data.jsonl", b"", "line 1: expected at least one example"),
            ("data.jsonl", b"\n \n", "line 1: expected at least one example"),
            ("data.jsonl", b"[" * 100_000, "line 1: not JSON"),
            ("data.json", b'[\n{"a": 1},\n{"a" 1}]', "line 3: not JSON"),
            ("data.json", b'[\n{"a": 1},\n3]', "line 3: expected a JSON object, got a number"),
            ("data.jsonl", b'[1]\n{"a": 1}\n', "line 1: expected a JSON object, got a list"),
            ("data.json", b"[" * 100_000, "line 1: not JSON"),
            ("data.json", b"[]", "line 1: expected at least one example"),
            ("data.csv", b"a,b\n1,2\n1,2,3\n", "line 3: expected 2 cells, got 3"),
            ("data.csv", b"a,b\n1\n", "line 2: expected 2 cells, got 1"),
            ("data.csv", b"a,b\n1,\xe9\n", "line 2: expected UTF-8, got the byte 0xe9"),
            ("data.csv", b"a,b\n", "line 1: expected at least one example"),
            ("data.parquet", b"not parquet", "not parquet"),
            ("data.txt", b"text", "expected a file that ends in .jsonl, .json, .csv, .parquet"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        """A broken file is refused in one line with its name, the line and what was expected."""
        path = written(tmp_path / name, content)
        with pytest.raises(DataError) as raised:
            read_file(path)
        assert str(path) in str(raised.value)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """A file that is not there is an OSError, not a broken file."""
        with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
            read_file(tmp_path / "none.jsonl")


class TestSchemas:
    def test_nulls_are_missing_values(self) -> None:
        """A null, as the hub pads rows with it, is a missing value; fields nobody asked for are left out."""
        row = Row({"question": "Q", "answer": "A", "choices": None, "more": 1}, "data.jsonl, line 1", "data.jsonl")
        assert as_schema(row, Question) == Question("Q", "A", [])

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"question": "Q"}, "data.jsonl, line 7: the field answer is missing"),
            ({"question": "Q", "answer": None}, "data.jsonl, line 7: the field answer is missing"),
            ({"question": "Q", "answer": 5}, "data.jsonl, line 7: field answer: expected a text, got a number"),
            (
                {"question": "Q", "answer": "A", "choices": ["a", 2]},
                "line 7: field choices[1]: expected a text, got a number",
            ),
        ],
    )
    def test_the_field_is_named(self, values: dict[str, Any], message: str) -> None:
        """A missing field and one of the wrong type are refused with the row's place and the field's name."""
        with pytest.raises(DataError) as raised:
            as_schema(Row(values, "data.jsonl, line 7", "data.jsonl"), Question)
        assert message in str(raised.value)

    def test_lists_in_cells_are_decoded(self) -> None:
        """A cell holds a list as JSON where a list is expected, and is a text where a text is."""
        row = Row({"question": "[1, 2]", "answer": "3", "choices": '["a", "b"]'}, "data.csv, line 2", "data.csv", True)
        assert as_schema(row, Question) == Question("[1, 2]", "3", ["a", "b"])


class TestFolders:
    def test_files_are_found_by_the_split_in_their_names(self, tmp_path: Path) -> None:
        """A split's files are those whose name, or else whose folder, mentions it; dev_test is not dev, nor test."""
        names = ["anatomy_test.csv", "dev.jsonl", "dev_test.jsonl", "train-00000-of-00001.parquet", "val/law.csv"]
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "test_notes.txt").touch()
        found = {
            split: [str(path.relative_to(tmp_path)) for path in find_files(tmp_path, split)]
            for split in ("test", "dev", "dev_test", "train", "validation")
        }
        assert found == {
            "test": [names[0]], "dev": [names[1]], "dev_test": [names[2]], "train": [names[3]], "validation": [names[4]]
        }  # fmt: skip

    def test_a_split_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        """The only file of a folder is not taken for a test split when its name says train."""
        (tmp_path / "train.jsonl").touch()
        with pytest.raises(DataError, match=r"whose name says 'test', found train\.jsonl"):
            find_files(tmp_path, "test")

    def test_a_file_without_a_split_in_its_name_is_taken_if_it_is_the_one(self, tmp_path: Path) -> None:
        """Where no name mentions a split, the only file is it, or the one that the task knows by its stem."""
        (tmp_path / "question.jsonl").touch()
        assert find_files(tmp_path, "test") == [tmp_path / "question.jsonl"]
        (tmp_path / "judge_prompts.jsonl").touch()
        assert find_files(tmp_path, "test", "question") == [tmp_path / "question.jsonl"]
        with pytest.raises(DataError, match="name the file itself"):
            find_files(tmp_path, "test")
