"""One word for one thing: sizes are converted and compared in one place, and no name has two meanings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.tree import ROOT

HOME = ROOT / "lrc_core" / "budget"
SIZES = {"keep", "keeps", "kept", "removed", "compression", "focus"}
"""Parts of names that stand for a share of the parameters."""
FREE = {"float", "int", "round", "min", "max"}
"""Calls that leave a size a size."""


@cache
def trees() -> dict[Path, ast.Module]:
    """Every file of the product, parsed."""
    folders = [ROOT / name for name in ("lrc_core", "pages", "integrations")]
    paths = [*(path for folder in folders for path in sorted(folder.rglob("*.py"))), ROOT / "app.py"]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_size(node: ast.expr) -> bool:
    """Whether an expression is a size by its name, or a size in percent over a hundred."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[inner, *_]) if name in FREE:
            return is_size(inner)
        case ast.BinOp(op=ast.Div(), right=ast.Constant(value=100)):
            return True
        case ast.BinOp(left=left, op=ast.Sub() | ast.Add(), right=right):
            return is_size(left) or is_size(right)
        case ast.BinOp(left=ast.Constant(), op=ast.Mult(), right=inner):
            return is_size(inner)
        case ast.Subscript(slice=ast.Constant(value=str(name))) | ast.Attribute(attr=name) | ast.Name(id=name):
            return bool(SIZES & set(name.split("_")))
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return bool(SIZES & set(name.split("_")))
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in {"keep_ratio", "whole_model_ratio"}
    return False


def arithmetic(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a file turns what is kept into what is removed, rounds a size, or decides whether two are the same."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=ast.Constant(value=1 | 100), op=ast.Sub(), right=right) if is_size(right):
                yield node.lineno, ast.unparse(node)
            case ast.Call(func=ast.Name(id="round"), args=[inner, ast.Constant(value=6)]) if is_size(inner):
                yield node.lineno, ast.unparse(node)
            case ast.Compare(
                left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(op=ast.Sub()) as difference]),
                comparators=[ast.Constant(value=float(bound))],
            ) if bound < 0.01 and is_size(difference):
                yield node.lineno, ast.unparse(node)


def test_sizes_are_converted_and_compared_in_the_budget_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for path, tree in trees().items()
        if HOME not in path.parents
        for line, words in arithmetic(tree)
    ]
    assert not found, f"lrc_core/budget has a function for each of these: {found}"


COUNTING = {"is_dense", "layer_params", "layer_ratio", "plan_params", "keep_ratio", "normalised", "largest_low_rank"}
"""What depends on how a layer is stored."""


def cost_of_its_own(tree: ast.AST) -> Iterator[int]:
    """Where a file adds rows and columns up, as a storage law does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = {part for side in (node.left, node.right) for part in ("out_features", "in_features")
                     if part in ast.unparse(side)}  # fmt: skip
            if len(sides) == 2:
                yield node.lineno


def counted_by_another_law(tree: ast.AST) -> Iterator[str]:
    """Functions that take the ranks of a plan and count them by layers that are not the plan's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            calls = [ast.unparse(call.func).split(".")[-1] for call in ast.walk(node) if isinstance(call, ast.Call)]
            if "full_ranks" in calls and COUNTING & set(calls) and not {"stored", "stored_card"} & set(calls):
                yield f"{node.name} at line {node.lineno}"


def test_what_a_layer_costs_is_known_to_the_budget_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, tree in trees().items()
        if HOME not in path.parents
        for line in cost_of_its_own(tree)
    ]
    assert not found, f"budget.factor_params counts by the layer's storage law, these do not: {found}"


def test_a_plan_is_counted_by_its_own_law() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}" for path, tree in trees().items() for name in counted_by_another_law(tree)
    ]
    assert not found, f"plan.stored(card) has the layers by which to count: {found}"


def test_both_would_be_found() -> None:
    careless = ast.parse("def f(card, plan):\n    return is_dense(card.layers[0], plan.full_ranks(card.layers)['a'])")
    assert list(counted_by_another_law(careless))
    assert list(cost_of_its_own(ast.parse("k * (layer.in_features + layer.out_features)")))
    assert not list(cost_of_its_own(ast.parse("layer.in_features + 1")))


@pytest.mark.parametrize(
    "line",
    [
        "1 - keep",
        "100 * (1 - plan.keep_target)",
        "1 - float(row['keep_whole_model'])",
        "1 - float(plan.get('keep_target', 1))",
        "1.0 - shown.keep_achieved",
        "1 - rate / 100",
        "100 - removed",
        "1 - keep_ratio(layers, plan)",
        "round(float(row['keep_target']), 6)",
        "abs(row['keep_target'] - keep) < 1e-6",
        "abs(found.compression - other) > 0.0051",
        "abs(float(row['keep_target']) - plan.keep_target) <= 0.005",
    ],
)
def test_the_rule_sees_a_size_however_it_is_written(line: str) -> None:
    assert list(arithmetic(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["1 - p", "1 - rank / full", "round(loss, 6)", "abs(before - keep) <= 0.01", "keep - 1"]
)
def test_the_rule_leaves_other_arithmetic_alone(line: str) -> None:
    assert not list(arithmetic(ast.parse(line)))


def test_no_two_public_classes_share_a_name() -> None:
    """A search for a class finds one record, not three."""
    places: dict[str, list[str]] = {}
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_a_function_that_is_imported_by_its_name_shares_it_with_no_other() -> None:
    """``from a import reading`` and ``from b import reading`` cannot be told apart where they are called."""
    public = {
        (module_name(path), node.name)
        for path, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    modules: dict[str, set[str]] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (str(node.module), alias.name) in public:
                        modules.setdefault(alias.name, set()).add(str(node.module))
    assert not {name: found for name, found in modules.items() if len(found) > 1}


def test_functions_that_make_sentences_and_tables_say_of_what() -> None:
    """Names that stood for a dozen functions each; ``draw`` is the one that steps of Learn have in common."""
    learn = ROOT / "pages" / "ui" / "learn"
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and (node.name in ("reading", "table") or (node.name == "draw" and path.parent != learn))
    ]
    assert not found
