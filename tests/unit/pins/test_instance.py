"""The record of a running instance: whole, or not there."""

from __future__ import annotations

from sockpid.pins import instance


def test_what_is_written_is_read() -> None:
    document = {"pid": 4711, "hooks": {"send": None}, "kernel": "6.1 \u00e9"}
    assert instance.unpack(instance.pack(document)) == document
    assert len(instance.pack(document)) == instance.SIZE


def test_a_record_that_is_being_replaced_is_none() -> None:
    """At any byte the former one may end and the new one begin."""
    old, new = (instance.pack({"pid": pid, "text": text}) for pid, text in ((1, "x" * 50), (2, "yy")))
    whole = {
        None if found is None else found["pid"] for found in (instance.unpack(new[:at] + old[at:]) for at in range(200))
    }
    assert whole == {None, 1, 2}
    assert instance.unpack(bytes(instance.SIZE)) is None


def test_one_that_is_too_long_goes_without_its_lists() -> None:
    found = instance.unpack(instance.pack({"pid": 1, "outputs": [{"output": "x" * 20000}], "hooks": {}}))
    assert found == {"pid": 1, "outputs": None, "hooks": None}
