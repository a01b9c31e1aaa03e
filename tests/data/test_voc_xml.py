"""One VOC file: corners by hand, and files that are wrong or hostile."""

from __future__ import annotations

import pytest

from transfer.data.voc_xml import BadXML, parse_voc_xml


def document(objects: str, *, size: str = "<size><width>50</width><height>40</height></size>") -> bytes:
    return f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>".encode()


def one(xmin: object, ymin: object, xmax: object, ymax: object, *, extra: str = "", name: str = "dog") -> str:
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def test_corners_become_exclusive_and_count_from_zero() -> None:
    # pixels 1..50 and 1..40 of the kit are the whole image
    annotation = parse_voc_xml(document(one(1, 1, 50, 40) + one(11, 3, 11.5, 4)))
    assert annotation.size == (40, 50)
    assert annotation.filename == "a.jpg"
    assert [box.corners for box in annotation.boxes] == [(0, 0, 50, 40), (10, 2, 11.5, 4)]
    assert not annotation.boxes[0].empty


def test_difficult_and_its_absence() -> None:
    objects = one(1, 1, 9, 9, extra="<difficult>1</difficult>") + one(1, 1, 9, 9, extra="<difficult> 0 </difficult>")
    boxes = parse_voc_xml(document(objects + one(1, 1, 9, 9))).boxes
    assert [box.difficult for box in boxes] == [True, False, False]


def test_the_boxes_of_parts_do_not_count() -> None:
    part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    (box,) = parse_voc_xml(document(one(11, 11, 20, 20, extra=part))).boxes
    assert (box.name, box.corners) == ("dog", (10, 10, 20, 20))
    with pytest.raises(BadXML, match=r"object 1 \('dog'\) has no <bndbox>"):
        parse_voc_xml(document(f"<object><name>dog</name>{part}</object>"))


@pytest.mark.parametrize("corners", [(5, 5, 5, 5), (5, 5, 9, 5), (9, 5, 5, 9)])
def test_corners_that_span_no_area_are_marked(corners: tuple[int, int, int, int]) -> None:
    assert parse_voc_xml(document(one(*corners))).boxes[0].empty


@pytest.mark.parametrize(
    "size", ["", "<size/>", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"]
)
def test_a_size_that_says_nothing(size: str) -> None:
    assert parse_voc_xml(document("", size=size)).size is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (document(one("nan", 1, 5, 5)), r"<xmin> is 'nan', not a finite number"),
        (document(one(1, "inf", 5, 5)), "<ymin>"),
        (document(one(1, 1, "five", 5)), "<xmax> is 'five'"),
        (document(one(1, 1, 5, "")), "<ymax>"),
        (document(one(1, 1, 5, 5) + one(1, 1, 5, 5, name=" ")), "object 2 has no <name>"),
        (document(one(1, 1, 5, 5, extra="<difficult>maybe</difficult>")), "<difficult> is 'maybe'"),
        (b"", "not well-formed"),
        (b"<annotation><object>", "not well-formed"),
        (b"\xff\xd8\xff\xe0", "not well-formed"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "not well-formed"),
        (b"<kml/>", "root is <kml>"),
    ],
)
def test_wrong_files_are_named_by_their_fault(content: bytes, reason: str) -> None:
    with pytest.raises(BadXML, match=reason):
        parse_voc_xml(content)


def test_entity_bombs_and_external_entities_are_refused() -> None:
    bomb = (
        b'<!DOCTYPE a [<!ENTITY l "lol"><!ENTITY m "&l;&l;&l;&l;">]><annotation><filename>&m;</filename></annotation>'
    )
    external = (
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>'
    )
    harmless = b'<!DOCTYPE annotation SYSTEM "http://localhost/a.dtd"><annotation/>'
    for content in (bomb, external, harmless):
        with pytest.raises(BadXML, match="refused"):
            parse_voc_xml(content)


def test_a_file_of_improbable_length_is_refused_unread() -> None:
    with pytest.raises(BadXML, match="limit"):
        parse_voc_xml(b"<" * ((16 << 20) + 1))
