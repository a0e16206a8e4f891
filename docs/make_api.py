"""Write docs/api.md: signatures and docstrings of the public names, from the source."""

import ast
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from docstring_parser.google import parse

import kinema

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# API reference

```sh
make tables    # regenerates this page from the docstrings
```

[python.md](python.md) shows how to use these names. Import them from the module in their title.
"""
PARTS = {
    "inference.recognizer": ("Prediction", "MissingStream", "Source", "Video"),
    "inference.frame_array": ("Frames",),
    "inference.trained_model": ("TrainedModel", "save_model"),
    "models.own": ("create_own_model",),
    "evaluation.evaluate": ("Evaluation",),
    "training.runs": ("Run",),
    "training.recipe": ("Clip", "Data", "Optim", "Init", "Checkpoint", "Compute", "RunSettings"),
    "transforms.augment": ("Augmentation",),
    "transforms.preprocessing": ("Preprocessing",),
    "transforms.sampling": ("Sampling",),
    "data.manifest": ("Manifest", "Entry"),
    "data.dataset": ("VideoDataset", "Sample", "Failure"),
    "data.samplers": ("TrainingBatches", "evaluation_batches", "Draw"),
    "data.loaders": ("make_loader", "complete", "Batch", "LoadedBatch"),
    "video.read_options": ("ReadOptions", "Limits"),
}
"""Names of modules that Python programs use, beside those of `kinema`."""

Definition = ast.FunctionDef | ast.ClassDef


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for name in kinema.__all__:
        lines += _section(f"kinema.{name}", kinema._HOME[name], name)
    for module, names in PARTS.items():
        for name in names:
            lines += _section(f"kinema.{module}.{name}", f"kinema.{module}", name)
    lines += ["## Errors", "", "All are in `kinema.errors` and have the attributes `path`, `line` and `field`.", ""]
    for node in _tree("kinema.errors").body:
        if isinstance(node, ast.ClassDef):
            lines.append(f"- `{node.name}`: {(ast.get_docstring(node) or '').splitlines()[0]}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def _section(title: str, module: str, name: str) -> Iterator[str]:
    """Yield the lines of a class, a function, or an alias with a docstring below it."""
    body = _tree(module).body
    for node, following in pairwise([*body, ast.Pass()]):
        if isinstance(node, Definition) and node.name == name:
            yield from (f"## {title}", "", *_definition(node))
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield from (f"### {name}.{method.name}", "", *_definition(method))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(following, ast.Expr)
            text = " ".join(str(ast.literal_eval(following.value)).split())
            yield from (f"## {title}", "", f"`{ast.unparse(node)}`", "", text, "")


def _definition(node: Definition) -> Iterator[str]:
    """Yield the signature and the docstring of a definition."""
    doc = parse(ast.get_docstring(node) or "")
    if is_property := "property" in map(ast.unparse, node.decorator_list):
        signature = f"{node.name}: {ast.unparse(node.returns)}"
    else:
        signature = _signature(node)
    if signature:
        yield from ("```py", *textwrap.wrap(signature, 110, subsequent_indent="    "), "```", "")
    prefix = "Property. " if is_property else ""
    yield prefix + " ".join((doc.short_description or "").split())
    for paragraph in (doc.long_description or "").split("\n\n"):
        is_code = paragraph.startswith((">>>", "    "))
        yield from ("", f"```text\n{paragraph}\n```" if is_code else " ".join(paragraph.split())) if paragraph else ()
    yield ""
    types = {n.target.id: n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    for param in doc.params:
        field = f": {ast.unparse(types[param.arg_name]).partition(': ')[2]}" if param.arg_name in types else ""
        yield f"- `{param.arg_name}{field}`: {_flat(param.description)}"
    if doc.returns is not None:
        yield f"- returns: {_flat(doc.returns.description)}"
    for error in doc.raises:
        yield f"- {error.args[0]} `{error.type_name}`: {_flat(error.description)}"
    yield ""


def _signature(node: Definition) -> str:
    """Return the call of a function or class; empty for a class of fields, which are listed."""
    if isinstance(node, ast.ClassDef):
        init = [method for method in node.body if isinstance(method, ast.FunctionDef) and method.name == "__init__"]
        return _signature(init[0]).replace("__init__", node.name, 1).removesuffix(" -> None") if init else ""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("cls, ")
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"{node.name}({'' if arguments in ('self', 'cls') else arguments}){returns}"


def _flat(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
