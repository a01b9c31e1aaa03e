"""What was compared, on what, and by which machine: backbones, protocols, facts."""

from __future__ import annotations

from transfer.ranking.record import BackboneRecord
from transfer.ranking.report.blocks import Block, Section, Table
from transfer.ranking.report.view import View
from transfer.ranking.report.wording import NOTHING, is_known, millions, number


def setting_section(view: View) -> Section:
    """Backbones, tasks with their protocols, facts."""
    blocks: list[Block] = []
    if view.record.backbones:
        blocks.append(_backbones(view))
    if view.record.tasks:
        blocks.append(_tasks(view))
    blocks.append(_facts(view))
    return Section("setting", "Backbones, protocols, facts", blocks)


def _backbones(view: View) -> Table:
    columns = ["backbone", "arm", "weights", "top-1", "parameters, millions", "multiply-adds, millions"]
    columns += ["of an input of", "description", "grown", "changes"]
    rows = [
        [
            each.name,
            each.arm,
            each.weights or NOTHING,
            number(each.top1),
            millions(each.parameters),
            millions(each.multiply_adds),
            " x ".join(map(str, each.input_size)) or NOTHING,
            each.description or NOTHING,
            _grown(each),
            " ".join(each.changes) or NOTHING,
        ]
        for each in view.record.backbones
    ]
    arms = (
        "Arms: pretrained, with weights from elsewhere; grown, trained by this ranking; random, no weights; frozen, "
        "pretrained and held fixed. Top-1: of ImageNet; that of a grown backbone is of its own test set."
    )
    return Table("Backbones", columns, rows, frozenset({1, 2, 7, 8, 9}), notes=[arms])


def _grown(backbone: BackboneRecord) -> str:
    """What is known of its own training."""
    if not backbone.grown:
        return NOTHING
    return ", ".join(f"{key} {_value(value)}" for key, value in backbone.grown.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return number(value) if is_known(value) else NOTHING
    return str(value)


def _tasks(view: View) -> Table:
    columns = ("task", "kind", "figure", "training images", "test images", "protocol", "config", "changes")
    rows = [
        [
            each.name,
            each.kind,
            each.figure,
            f"{each.train_images:,}",
            f"{each.test_images:,}",
            each.protocol,
            each.config,
            " ".join(each.changes) or NOTHING,
        ]
        for each in view.record.tasks
    ]
    return Table("Tasks and protocols", columns, rows, frozenset({1, 2, 5, 6, 7}))


def _facts(view: View) -> Table:
    record = view.record
    facts = {"ranking": record.name, "made": record.made, "seeds": ", ".join(map(str, record.seeds)), **record.facts}
    return Table("Facts", ("fact", "value"), list(map(list, facts.items())), frozenset({1}))
