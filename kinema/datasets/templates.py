"""Templates that pair RGB and depth by file name: `{label}/{name}_rgb.mp4` with `{label}/{name}_depth.mkv`."""

import difflib
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal, NamedTuple

from kinema.data.manifest import LABEL, Entry, check_heads
from kinema.data.names import normalize, split_name
from kinema.datasets.cells import is_label, unknown_split
from kinema.datasets.prepared import note_names, single_modality_notes
from kinema.errors import ManifestError
from kinema.modality import MODALITIES, Modality
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import is_video, scan

COLUMNS = ("group", "subject", "camera", "split")
"""Fields that fill a manifest column, in addition to labels."""
CHARACTERS = {"": re.compile("[^/]+"), "d": re.compile("[0-9]+")}
"""Characters of a field, by its format."""
MAX_TRIES = 10_000
"""Number of values of repeated fields that are tried on one path."""


class Field(NamedTuple):
    """Field of a template; its name is empty if only its place matters."""

    name: str
    characters: re.Pattern[str]


Part = str | Field
"""Fixed characters, or a field."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Pattern of file names.

    Attributes:
        text: Template as the user wrote it.
        fields: Distinct names of its fields, in order.
        num_fixed: Number of characters outside of fields.
        parts: Fixed characters and fields, in order.
    """

    text: str
    fields: tuple[str, ...]
    num_fixed: int
    parts: tuple[Part, ...]

    @property
    def labels(self) -> list[str]:
        """Fields that are labels, in alphabetical order."""
        return sorted(filter(is_label, self.fields))

    def match(self, path: str) -> dict[str, str] | None:
        """Return the values of the fields in a path, or None if it does not match.

        The time is linear in the length of the path, unless a field is repeated.

        Raises:
            ManifestError: The path matches in more than one way, or repeated fields have too many possible values.
        """
        fix = "Separate the fields by fixed characters, or use {FIELD:d} for digits."
        try:
            shortest, longest = [
                _split(self.parts, normalize(path), {}, order, iter(range(MAX_TRIES))) for order in ORDERS
            ]
        except StopIteration:
            problem = f"repeated fields of {self.text!r} have too many possible values"
            raise ManifestError(f"{path}: {problem}. {fix}", path=path) from None
        if shortest is None or longest is None:
            return None
        for field, value in shortest.items():
            if value != longest[field]:
                problem = f"matches {self.text!r} in several ways, {field} is {value!r} or {longest[field]!r}"
                raise ManifestError(f"{path}: {problem}. {fix}", path=path, field=field)
        return {field: value.strip() for field, value in shortest.items()}


Order = Literal["shortest", "longest"]
ORDERS: tuple[Order, Order] = ("shortest", "longest")
"""Values tried first. A match is unique if both orders find the same."""


def _split(
    parts: Sequence[Part], path: str, known: Mapping[str, str], order: Order, tries: Iterator[int]
) -> dict[str, str] | None:
    """Return the values of the named fields of a path, or None if it does not match.

    Args:
        parts: Parts of the template.
        path: Path to match.
        known: Values of fields before these parts.
        order: Values tried first, from the first field on.
        tries: Iterator that limits the number of values tried for repeated fields.

    Raises:
        StopIteration: The limit is exceeded.
    """
    starts = _possible_starts(parts, path, known)
    if 0 not in starts[0][:1]:
        return None
    values, start = dict(known), 0
    for number, part in enumerate(parts, start=1):
        text = part if isinstance(part, str) else values.get(part.name)
        if text is not None:
            start += len(text)
            continue
        assert isinstance(part, Field)
        run = part.characters.match(path, start)
        assert run is not None  # a possible start
        stops = starts[number][bisect_right(starts[number], start) : bisect_right(starts[number], run.end())]
        stops = stops if part.name and order == "shortest" else stops[::-1]
        if _has_repeated(parts[number - 1 :], values):
            for stop in stops:
                next(tries)
                named = {part.name: path[start:stop]} if part.name else {}
                found = _split(parts[number:], path[stop:], values | named, order, tries)
                if found is not None:
                    return found
            return None
        if part.name:
            values[part.name] = path[start : stops[0]]
        start = stops[0]
    return values


def _possible_starts(parts: Sequence[Part], path: str, known: Mapping[str, str]) -> list[list[int]]:
    """Return the positions from which the parts from each one on match the rest of a path, and its end.

    Repeated fields count as different ones unless their value is known.
    """
    starts = [[len(path)]]
    for part in reversed(parts):
        after, before = starts[-1], list[int]()
        text = part if isinstance(part, str) else known.get(part.name)
        if text is not None:
            before = [stop - len(text) for stop in after if path.endswith(text, 0, stop)]
        else:
            assert isinstance(part, Field)
            for run in part.characters.finditer(path) if after else ():
                last = bisect_right(after, run.end())
                if last:
                    before += range(run.start(), after[last - 1])
        starts.append(before)
    return starts[::-1]


def _has_repeated(parts: Sequence[Part], known: Mapping[str, str]) -> bool:
    """Return whether a field without a known value occurs twice."""
    names = [part.name for part in parts if isinstance(part, Field) and part.name and part.name not in known]
    return len(set(names)) < len(names)


def parse_template(text: str, *, required: Literal["label", "group"] = "label") -> Template:
    """Parse a template. `{field}` matches one or more characters except slashes, `{field:d}` digits.

    Raises:
        ManifestError: The text is malformed, lacks the required field, or names a single image.
    """

    def error(problem: str, field: str | None = None) -> ManifestError:
        return ManifestError(f"template {text!r}: {problem}", field=field)

    text = normalize(text)
    try:
        parts = list(Formatter().parse(text.removeprefix("./").rstrip("/")))
    except ValueError as failure:
        raise error(f"{failure}; expected fields such as {{name}}") from failure
    split: list[Part] = []
    for literal, field, form, conversion in parts:
        split.append(literal)
        if field is None:
            continue
        if conversion or form not in ("", "d") or not re.fullmatch(r"(\w+(\.\w+)?)?", field):
            raise error(f"{{{field}}} is not a field; expected {{name}}, or {{name:d}} for digits", field)
        split.append(Field(field, CHARACTERS[form]))
    fields = tuple(dict.fromkeys(part.name for part in split if isinstance(part, Field) and part.name))
    try:
        check_heads(list(filter(is_label, fields)))
    except ManifestError as failure:
        raise error(str(failure), failure.field) from failure
    if required == "group" and required not in fields:
        raise error("field {group} is missing. Mark the part of the name that is the recording.", required)
    if required == LABEL and not any(map(is_label, fields)):
        raise error("field {label} is missing. Mark the part of the path that is the class.", LABEL)
    last = "".join(literal for literal, *_ in parts).rsplit("/", 1)[-1]
    if Path(f"x{last}").suffix.lower() in IMAGE_SUFFIXES:
        raise error("names a single image; expected the folder that contains the images of a clip")
    if text.startswith("/"):
        raise error("starts with a slash; expected a path relative to --root")
    return Template(
        text=text,
        fields=fields,
        num_fixed=sum(len(literal) for literal, *_ in parts),
        parts=tuple(split),
    )


def match_templates(root: Path, out: Path, *, rgb: str = "", depth: str = "") -> tuple[list[Entry], bool, list[str]]:
    """Return the samples whose paths match a template, whether the templates give their split, and notes.

    The fields `label` (or `label.verb`, `label.noun`, ...), `group`, `subject`, `camera` and `split` fill columns; all
    others only match. RGB and depth are paired if their common fields agree. A sample may lack one of the two. A path
    that matches both templates belongs to the one with more fixed characters.
    The manifest `out` is ignored among the files if it is below the root.

    Raises:
        ManifestError: A template is malformed, matches nothing, or matches two files of one modality for one sample.
    """
    templates: dict[Modality, Template] = {
        modality: parse_template(text) for modality, text in zip(MODALITIES, (rgb, depth), strict=True) if text
    }
    shared = _shared_fields(templates)
    contents = scan(root)
    written = (os.path.realpath(out), os.path.realpath(out.with_suffix(".json")))
    others = [
        path
        for path in contents.others
        if path.suffix not in (".csv", ".json") or os.path.realpath(path) not in written
    ]
    sources = frozenset(path.relative_to(root).as_posix() for path in contents.sources)
    paths = [path.relative_to(root).as_posix() for path in sorted((*contents.sources, *others))]
    matched, both = _match(templates, paths, sources)
    samples: dict[tuple[str, ...], dict[Modality, str]] = {}
    for path, (modality, fields) in matched.items():
        key = tuple(fields[field] for field in shared) if len(templates) == 2 else (path,)
        sample = samples.setdefault(key, {})
        if modality in sample:
            problem = f"{sample[modality]} and {path} are both the {modality} of one sample"
            fix = f"Add a field that distinguishes them, beside {', '.join(shared)}, to the templates."
            raise ManifestError(f"{root}: {problem}. {fix}", path=root / path, field=modality)
        sample[modality] = path
    entries = []
    for sample in samples.values():
        fields = {name: value for path in reversed(sample.values()) for name, value in matched[path][1].items()}
        entries.append(_entry(sample.get("rgb", ""), sample.get("depth", ""), fields))
    _check_lost_classes(root, templates, [path for path in paths if path not in matched], entries)
    notes = [
        *_field_notes(templates),
        *note_names(both, "paths match both templates; the one with more fixed characters was used"),
        *single_modality_notes(entries),
        *note_names(
            [path for path in paths if path not in matched],
            "files or folders of images match no template and are omitted",
        ),
    ]
    return entries, any("split" in template.fields for template in templates.values()), notes


def _shared_fields(templates: Mapping[Modality, Template]) -> tuple[str, ...]:
    """Return the fields that all templates have; two templates need the same labels."""
    if not templates:
        raise ManifestError("no template given. Pass one for rgb, for depth, or for both.", field="rgb")
    first, *_ = templates.values()
    *_, last = templates.values()
    if first.labels != last.labels:
        problem = f"different labels ({', '.join(first.labels)} and {', '.join(last.labels)}). Use the same in both."
        raise ManifestError(f"templates {first.text!r} and {last.text!r}: {problem}", field=LABEL)
    return tuple(field for field in first.fields if field in last.fields)


def _match(
    templates: Mapping[Modality, Template], paths: list[str], sources: frozenset[str]
) -> tuple[dict[str, tuple[Modality, dict[str, str]]], list[str]]:
    """Return modality and fields of each path that matches a template, and the paths that match both.

    Files of an unknown type count only if a template ends in their suffix.
    """
    matched: dict[str, tuple[Modality, dict[str, str]]] = {}
    both = []
    for path in paths:
        suffix = Path(path).suffix
        matches = [
            (modality, fields)
            for modality, template in templates.items()
            if path in sources or (suffix and template.text.endswith(suffix))
            if (fields := template.match(path)) is not None
        ]
        if len(matches) == 2:
            both.append(path)
            num_fixed = {modality: template.num_fixed for modality, template in templates.items()}
            if num_fixed["rgb"] == num_fixed["depth"]:
                raise ManifestError(f"{path}: matches both templates, with as many fixed characters", path=path)
            matches.sort(key=lambda match: -num_fixed[match[0]])
        if matches:
            matched[path] = matches[0]
    for modality, template in templates.items():
        if modality not in {matched_modality for matched_modality, _ in matched.values()}:
            example = f"a path is {paths[0]}" if paths else "the folder is empty"
            raise ManifestError(f"template {template.text!r}: matches nothing; {example}", field=modality)
    return matched, both


def _check_lost_classes(
    root: Path, templates: Mapping[Modality, Template], unmatched: Sequence[str], entries: Sequence[Entry]
) -> None:
    """Raise ManifestError if the videos of a class match a template except for their suffix, and no other file does."""
    used = {(head, label) for entry in entries for head, label in entry.labels.items()}
    for path in unmatched:
        for template in templates.values():
            fields = template.match(path) or {}
            lost = [name for name, value in fields.items() if is_label(name) and (_head(name), value) not in used]
            if lost and is_video(root / path):
                problem = f"class {fields[lost[0]]!r} has no sample, because the template does not end in"
                raise ManifestError(
                    f"{root}: {problem} {Path(path).suffix or 'the name'} of {path}. Rename the files, or use class "
                    "folders without a template.",
                    path=root / path,
                    field=lost[0],
                )


def _field_notes(templates: Mapping[Modality, Template]) -> list[str]:
    """Return notes on fields that are probably misspelled names of columns."""
    columns = (LABEL, *COLUMNS)
    notes = []
    for field in dict.fromkeys(field for template in templates.values() for field in template.fields):
        matches = difflib.get_close_matches(field, columns, n=1, cutoff=0.8)
        if matches and field not in columns and not is_label(field):
            notes.append(f"field {{{field}}} fills no column; did you mean {{{matches[0]}}}?")
    return notes


def _head(field: str) -> str:
    return field.removeprefix(f"{LABEL}.")


def _entry(rgb: str, depth: str, fields: Mapping[str, str]) -> Entry:
    labels = {_head(name): value for name, value in fields.items() if is_label(name)}
    for head, label in labels.items():
        if not label:
            raise ManifestError(f"{rgb or depth}: {head} is empty", path=rgb or depth, field=head)
    columns = {name: fields[name] for name in COLUMNS if name in fields}
    if "split" in columns:
        split = split_name(columns["split"])
        if split is None:
            raise ManifestError(f"{rgb or depth}: {unknown_split(columns['split'])}", path=rgb or depth, field="split")
        columns["split"] = split
    return Entry(rgb=rgb, depth=depth, labels=labels, **columns)  # type: ignore[arg-type]  # text
