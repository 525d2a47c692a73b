"""The journal holds what was logged, whole and in order, whatever cuts it short."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atheria import journal
from atheria.config import UserError
from atheria.journal import Artifact, Earlier, Image, Journal, LastSteps, Metrics, Params, Status, Tags

names = st.text(min_size=1, max_size=20)
records = st.one_of(
    st.builds(
        Metrics,
        st.dictionaries(names, st.floats(), max_size=5),
        st.integers(0, 2**60),
        st.integers(0, 2**50),
    ),
    st.builds(Params, st.dictionaries(names, st.text(), max_size=5)),
    st.builds(Tags, st.dictionaries(names, st.text(), max_size=5)),
    st.builds(Artifact, names, names),
    st.builds(Image, names, names, st.integers(0, 2**60), st.integers(0, 2**50)),
    st.builds(Status, st.sampled_from(["RUNNING", "FINISHED", "KILLED"]), st.integers(0, 2**50)),
    st.builds(Earlier, st.dictionaries(names, st.integers(0, 2**60), max_size=5)),
)


def same(a: object, b: object) -> bool:
    return a == b or repr(a) == repr(b)  # NaN is not itself


def written(folder: Path, content: list) -> None:
    held = Journal(folder)
    for record in content:
        held.append(record)
    held.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=8), st.data())
def test_after_a_cut_anywhere_the_whole_records_are_there_and_more_can_follow(
    tmp_path_factory: pytest.TempPathFactory, content: list, data
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    written(folder, content)
    path = folder / journal.RECORDS
    raw = path.read_bytes()
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut])
    whole = raw[:cut].count(b"\n")
    assert all(
        same(got, expected) for (got, _), expected in zip(journal.read(folder), content[:whole], strict=True)
    )
    written(folder, [Tags({"after": "the cut"})])
    got = [record for record, _ in journal.read(folder)]
    assert len(got) == whole + 1
    assert got[-1] == Tags({"after": "the cut"})


@given(st.lists(records, min_size=1, max_size=8), st.data())
@settings(max_examples=30, deadline=None)
def test_reading_goes_on_from_any_offset_that_was_given(
    tmp_path_factory: pytest.TempPathFactory, content: list, data
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    written(folder, content)
    offsets = [0, *(offset for _, offset in journal.read(folder))]
    at = data.draw(st.integers(0, len(content)))
    rest = [record for record, _ in journal.read(folder, offsets[at])]
    assert len(rest) == len(content) - at
    assert all(same(a, b) for a, b in zip(rest, content[at:], strict=True))


def test_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = {
        "a": 0.1 + 0.2,
        "b": 5e-324,
        "c": -math.inf,
        "d": math.nan,
        "e": 1.7976931348623157e308,
        "f": -0.0,
    }
    written(tmp_path, [Metrics(values, 1, 2)])
    ((record, _),) = journal.read(tmp_path)
    assert [v.hex() for v in record.values.values()] == [v.hex() for v in values.values()]


def test_a_disk_that_is_full_for_a_while_loses_no_record_and_tears_none(small_disk: Path) -> None:
    held = Journal(small_disk)
    filler = small_disk / "filler"
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(room - 8192))
    records = [Tags({str(number): "x" * 300}) for number in range(60)]
    failed = 0
    for record in records:
        try:
            held.append(record)
        except OSError:
            failed += 1
            assert (small_disk / journal.RECORDS).read_bytes().endswith(b"\n")
    assert 20 < failed < 60
    filler.unlink()
    held.append(Tags({"last": "one"}))
    assert held.close() == 0
    assert [record for record, _ in journal.read(small_disk)] == [*records, Tags({"last": "one"})]


def test_one_process_holds_a_journal(tmp_path: Path) -> None:
    held = Journal(tmp_path)
    assert journal.is_held(tmp_path)
    with pytest.raises(UserError, match="is being logged by another process"):
        Journal(tmp_path)
    held.close()
    assert not journal.is_held(tmp_path)


def test_no_step_is_logged_twice(tmp_path: Path) -> None:
    written(tmp_path, [Metrics({"a": 1.0}, 5, 0), Metrics({"b": 1.0}, 3, 0), Earlier({"c": 9})])
    last = LastSteps.of(tmp_path)
    assert last.new({"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}, 4) == {"b": 2.0, "d": 2.0}
    assert last.new({"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}, 4) == {}
    assert last.new({"a": 2.0, "b": 2.0, "c": 2.0}, 10) == {"a": 2.0, "b": 2.0, "c": 2.0}


def test_no_picture_is_logged_twice(tmp_path: Path) -> None:
    written(tmp_path, [Image("images/a-5.png", "a", 5, 0)])
    last = LastSteps.of(tmp_path)
    assert [last.is_new_image(key, step) for key, step in (("a", 5), ("b", 5), ("a", 6), ("a", 6))] == [
        False,
        True,
        True,
        False,
    ]


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    written(tmp_path, [Tags({"a": "b"})])
    for line in (b"nonsense", b'{"Bomb": {}}', b'{"Tags": 3}', b'{"Tags": {"no": 1}}', b"[]"):
        (tmp_path / journal.RECORDS).write_bytes(line + b"\n")
        with pytest.raises(UserError, match="holds a line that is no record"):
            list(journal.read(tmp_path))


def test_a_folder_that_does_not_say_who_it_is_does_not_hide_the_others(tmp_path: Path, capsys) -> None:
    for name, text in (("good", None), ("bad", "{}"), ("worse", "[")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        if text is None:
            journal.write_identity(folder, journal.Identity(name, None, "e", "n", 1, {}))
        else:
            (folder / journal.IDENTITY).write_text(text)
    assert journal.folders(tmp_path) == [tmp_path / "runs/good"]
    assert capsys.readouterr().err.count("it is left out") == 2
