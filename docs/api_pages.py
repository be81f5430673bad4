"""The reference of the package as Markdown: a page per subpackage, read from the source without importing it."""

import ast
import re
import textwrap
from pathlib import Path

DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def write_api_pages(package: Path, staged: Path) -> list[dict]:
    """Write `api/<name>.md` for every subpackage and for the modules of the package itself; return them as a menu."""
    folders = [package, *sorted(path.parent for path in package.glob("*/__init__.py"))]
    (staged / "api").mkdir(parents=True, exist_ok=True)
    menu = []
    for folder in folders:
        name = ".".join(folder.relative_to(package.parent).parts)
        modules = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("__"))
        pieces = [f"# {name}", *described(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))]
        for path in modules:
            pieces += module_reference(path, f"{name}.{path.stem}")
        (staged / "api" / f"{name}.md").write_text("\n\n".join(pieces) + "\n", encoding="utf-8")
        menu.append({name: f"api/{name}.md"})
    return menu


def module_reference(path: Path, name: str) -> list[str]:
    """The public functions and classes of a module, each with its signature and docstring."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    pieces = [f"## {name} {{#{name}}}", *described(tree)]
    for node in public(tree):
        pieces += entry(node, node.name, name, source)
        if isinstance(node, ast.ClassDef):
            for method in public(node):
                pieces += entry(method, f"{node.name}.{method.name}", name, source)
    return pieces


def public(node: ast.Module | ast.ClassDef) -> list[ast.FunctionDef | ast.ClassDef]:
    """The definitions in a module or class whose names do not begin with an underscore."""
    return [each for each in node.body if isinstance(each, DEFINITIONS) and not each.name.startswith("_")]


def entry(node: ast.FunctionDef | ast.ClassDef, name: str, module: str, source: str) -> list[str]:
    """The heading of a definition, its signature as the source has it, its fields, and its docstring."""
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
    lines = source.splitlines()[first - 1 : node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        lines += [f"    {ast.unparse(each)}" for each in fields if not ast.unparse(each).startswith("_")]
    heading = "#" * (3 + name.count("."))
    signature = textwrap.dedent("\n".join(lines))
    return [f"{heading} {name} {{#{module}.{name}}}", f"```python\n{signature}\n```", *described(node)]


def described(node: ast.AST) -> list[str]:
    """The docstring as Markdown: examples become code, and angle brackets stay text."""
    text = ast.get_docstring(node)
    if text is None:
        return []
    blocks = re.split(r"\n\s*\n", text)
    return [f"```pycon\n{block}\n```" if block.lstrip().startswith(">>>") else as_text(block) for block in blocks]


def as_text(block: str) -> str:
    """Prose in which only the code between backticks may hold angle brackets and markup."""
    parts = re.split(r"(``.*?``|`[^`]*`)", block, flags=re.S)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_\[\]])", r"\\\1", part) for part in parts)
