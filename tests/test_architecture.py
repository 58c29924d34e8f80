"""Who may import whom: the layering of the package, held as data and checked against every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "convmodel_cli"
STANDARD = __import__("sys").stdlib_module_names

# layer -> (our layers it may import at module level, ours inside functions, third-party packages)
ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "knobs": (set(), set(), set()),
    "escaping": (set(), set(), {"orjson"}),
    "settings": ({"knobs"}, set(), set()),
    "answer_settings": ({"knobs"}, set(), set()),
    "events": (set(), set(), set()),
    "answer_events": (set(), set(), set()),
    "errors": (set(), set(), set()),
    "storage": ({"errors"}, set(), set()),
    "signals": ({"errors"}, set(), set()),
    "collector": (set(), set(), set()),
    "data": ({"errors"}, set(), {"orjson", "numpy"}),
    "model": (
        {"data", "settings", "answer_settings", "storage", "collector", "errors"},
        set(),
        {"torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "numpy"},
    ),
    "workflows": (
        {"data", "settings", "answer_settings", "events", "answer_events", "storage", "signals", "escaping", "errors"},
        {"model"},
        {"orjson", "jinja2"},
    ),
    "api": (
        {"data", "settings", "answer_settings", "events", "answer_events", "signals", "errors", "workflows"},
        {"model"},
        {"orjson", "torch"},
    ),
    "cli": (
        {"knobs", "settings", "answer_settings", "events", "answer_events", "storage", "signals", "escaping", "errors"},
        {"workflows", "api"},
        {"typer", "rich", "prompt_toolkit", "orjson", "yaml"},
    ),
}
EXTRAS = {"data": {"datasets", "pyarrow"}}  # optional packages, only inside functions
FREE = {"__init__", "__main__"}  # the package's own doors


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in FREE)


def layer_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(imported module, whether it is only imported inside a function or for type checkers)"""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inside = True
            if isinstance(child, ast.Import):
                found.extend((name.name, inside) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                module = child.module or ""
                parts = [f"{module}.{name.name}" for name in child.names] if module == "convmodel_cli" else [module]
                found.extend((part, inside) for part in parts)
            visit(child, inside)

    visit(ast.parse(path.read_text(encoding="utf-8")), lazy=False)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_what_its_layer_may(path: Path) -> None:
    layer = layer_of(path)
    ours, ours_lazily, others = ALLOWED[layer]
    for module, lazy in imports(path):
        top = module.split(".")[0]
        if top == "__future__" or top in STANDARD:
            continue
        if top == "convmodel_cli":
            target = module.split(".")[1]
            allowed = {layer, "__version__"} | ours | (ours_lazily if lazy else set())
            assert target in allowed, f"{layer} imports {module}"
        else:
            allowed = others | ({"torch"} if path.name == "batching.py" else set())
            allowed |= EXTRAS.get(layer, set()) if lazy else set()
            assert top in allowed, f"{layer} imports {top}"


def test_torch_stays_out_of_modules_that_check_data() -> None:
    heavy = {"torch", "transformers"}
    for path in modules():
        if layer_of(path) == "model" or path.name == "batching.py":
            continue
        eager = {module.split(".")[0] for module, lazy in imports(path) if not lazy}
        assert not eager & heavy, path


def test_there_are_no_rooms_for_leftovers() -> None:
    assert not [path for path in modules() if path.stem in {"utils", "common", "helpers", "misc"}]
