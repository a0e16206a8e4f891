"""RGB and depth paired by the names of their files: `{label}/{name}_rgb.mp4` with `{label}/{name}_depth.mkv`."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.prepared import SPLIT_FOLDERS, examples, single_modality_notes
from kinema.errors import ManifestError
from kinema.modality import MODALITIES, Modality
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import scan

COLUMNS = ("group", "subject", "camera", "split")
"""Fields that fill a column of the manifest, beside the labels."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Pattern of file names.

    Args:
        text: Template as the user wrote it.
        fields: Names of its fields, each once, in their order; fields without a name are not included.
        fixed: Number of characters outside of fields.
        shortest, longest: Patterns that match the fields as short and as long as possible from the first on. A path
            matches in a single way if the two agree.
    """

    text: str
    fields: tuple[str, ...]
    fixed: int
    shortest: re.Pattern[str]
    longest: re.Pattern[str]

    @property
    def heads(self) -> frozenset[str]:
        return frozenset(field for field in self.fields if _is_label(field))

    def match(self, path: str) -> dict[str, str] | None:
        """Return the values of the fields in a path, or None if it does not match.

        Raises:
            ManifestError: The path matches in more than one way.
        """
        short, long = (pattern.fullmatch(path) for pattern in (self.shortest, self.longest))
        if short is None or long is None:
            return None
        for number, field in enumerate(self.fields):
            if short[f"f{number}"] != long[f"f{number}"]:
                raise ManifestError(
                    f"{path}: matches {self.text!r} in several ways, {field} is {short[f'f{number}']!r} or "
                    f"{long[f'f{number}']!r}. Separate the fields by fixed characters, or use {{FIELD:d}} for digits.",
                    path=path,
                    field=field,
                )
        return {field: short[f"f{number}"].strip() for number, field in enumerate(self.fields)}


def parse_template(text: str) -> Template:
    """Return a template from its text: `{field}` is one or more characters except slashes, `{field:d}` digits.

    Raises:
        ManifestError: The text is malformed, has no label, or names a single image.
    """

    def error(problem: str, field: str | None = None) -> ManifestError:
        return ManifestError(f"template {text!r}: {problem}", field=field)

    try:
        parts = list(Formatter().parse(text.removeprefix("./").rstrip("/")))
    except ValueError as failure:
        raise error(f"{failure}; expected fields such as {{name}}") from failure
    fields: list[str] = []
    short = long = ""
    for literal, field, form, conversion in parts:
        short, long = short + re.escape(literal), long + re.escape(literal)
        if field is None:
            continue
        if conversion or form not in ("", "d") or not re.fullmatch(r"(\w+(\.\w+)?)?", field):
            raise error(f"{{{field}}} is not a field; expected {{name}}, or {{name:d}} for digits", field)
        characters = "[0-9]+" if form == "d" else "[^/]+"
        if field in fields:
            short, long = (pattern + f"(?P=f{fields.index(field)})" for pattern in (short, long))
        elif field:
            short += f"(?P<f{len(fields)}>{characters}?)"
            long += f"(?P<f{len(fields)}>{characters})"
            fields.append(field)
        else:
            short, long = short + characters, long + characters
    if not any(map(_is_label, fields)):
        raise error("field {label} is missing. Mark the part of the path that is the class.", LABEL)
    last = "".join(literal for literal, *_ in parts).rsplit("/", 1)[-1]
    if Path(f"x{last}").suffix.lower() in IMAGE_SUFFIXES:
        raise error("names a single image; expected the folder that contains the images of a clip")
    if text.startswith("/"):
        raise error("starts with a slash; expected a path relative to --root")
    return Template(
        text=text,
        fields=tuple(fields),
        fixed=sum(len(literal) for literal, *_ in parts),
        shortest=re.compile(short),
        longest=re.compile(long),
    )


def match_templates(
    root: Path, out: Path, *, rgb: str = "", depth: str = ""
) -> tuple[list[Entry], Literal["given", "missing"], list[str]]:
    """Return the samples whose paths match a template, whether the templates give their split, and notes.

    The fields `label` (or `label.verb`, `label.noun`, ...), `group`, `subject`, `camera` and `split` fill columns; all
    others only match. RGB and depth are paired if all fields that both templates have agree. A sample with only one of
    the two keeps its line. A path that matches both templates belongs to the one with more fixed characters.

    Args:
        root: Folder of the files and folders of images.
        out: Manifest, which is not a sample if it is below the root.
        rgb, depth: Templates; one may be empty.

    Raises:
        ManifestError: A template is malformed, matches nothing, or matches two files of one modality for one sample.
    """
    templates: dict[Modality, Template] = {
        modality: parse_template(text) for modality, text in zip(MODALITIES, (rgb, depth), strict=True) if text
    }
    shared = _shared_fields(templates)
    contents = scan(root)
    written = (out.resolve(), out.with_suffix(".json").resolve())
    others = [path for path in contents.others if path.suffix not in (".csv", ".json") or path.resolve() not in written]
    sources = frozenset(path.relative_to(root).as_posix() for path in contents.sources)
    paths = [path.relative_to(root).as_posix() for path in sorted((*contents.sources, *others))]
    matched, both = _match(templates, paths, sources)
    notes = _field_notes(templates)
    if both:
        notes.append(
            f"{len(both)} paths match both templates; the one with more fixed characters was used: {examples(both)}"
        )
    samples: dict[tuple[str, ...], dict[Modality, str]] = {}
    for path, (modality, fields) in matched.items():
        key = tuple(fields[field] for field in shared) if len(templates) == 2 else (path,)
        sample = samples.setdefault(key, {})
        if modality in sample:
            raise ManifestError(
                f"{root}: {sample[modality]} and {path} are both the {modality} of one sample with the same "
                f"{', '.join(shared)}. Add a field that distinguishes them to the templates.",
                path=root / path,
                field=modality,
            )
        sample[modality] = path
    entries = []
    for sample in samples.values():
        fields = {name: value for path in reversed(sample.values()) for name, value in matched[path][1].items()}
        entries.append(_entry(sample.get("rgb", ""), sample.get("depth", ""), fields))
    notes += single_modality_notes(entries)
    unmatched = [path for path in paths if path not in matched]
    if unmatched:
        notes.append(
            f"{len(unmatched)} files or folders of images match no template and are omitted: {examples(unmatched)}"
        )
    has_split = any("split" in template.fields for template in templates.values())
    return entries, "given" if has_split else "missing", notes


def _is_label(field: str) -> bool:
    return field == LABEL or field.startswith(f"{LABEL}.")


def _shared_fields(templates: Mapping[Modality, Template]) -> tuple[str, ...]:
    """Return the fields that all templates have; two templates need the same labels."""
    if not templates:
        raise ManifestError("no template given. Pass one for rgb, for depth, or for both.", field="rgb")
    first, *_ = templates.values()
    *_, last = templates.values()
    if first.heads != last.heads:
        raise ManifestError(
            f"templates {first.text!r} and {last.text!r}: different labels ({', '.join(sorted(first.heads))} and "
            f"{', '.join(sorted(last.heads))}). Use the same in both.",
            field=LABEL,
        )
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
        fits = [
            (modality, fields)
            for modality, template in templates.items()
            if path in sources or (suffix and template.text.endswith(suffix))
            if (fields := template.match(path)) is not None
        ]
        if len(fits) == 2:
            both.append(path)
            fixed = {modality: template.fixed for modality, template in templates.items()}
            if fixed["rgb"] == fixed["depth"]:
                raise ManifestError(f"{path}: matches both templates, with as many fixed characters", path=path)
            fits.sort(key=lambda fit: -fixed[fit[0]])
        if fits:
            matched[path] = fits[0]
    for modality, template in templates.items():
        if modality not in {taken for taken, _ in matched.values()}:
            found = f"a path is {paths[0]}" if paths else "the folder is empty"
            raise ManifestError(f"template {template.text!r}: matches nothing; {found}", field=modality)
    return matched, both


def _field_notes(templates: Mapping[Modality, Template]) -> list[str]:
    """Return notes on fields that fill no column but are spelled like one that does."""
    known = (LABEL, *COLUMNS)
    fields = dict.fromkeys(field for template in templates.values() for field in template.fields)
    notes = []
    for field in fields:
        near = difflib.get_close_matches(field, known, n=1, cutoff=0.8)
        if near and field not in known and not _is_label(field):
            notes.append(f"field {{{field}}} fills no column; did you mean {{{near[0]}}}?")
    return notes


def _entry(rgb: str, depth: str, fields: Mapping[str, str]) -> Entry:
    labels = {name.removeprefix(f"{LABEL}."): value for name, value in fields.items() if _is_label(name)}
    for head, label in labels.items():
        if not label:
            raise ManifestError(f"{rgb or depth}: {head} is empty", path=rgb or depth, field=head)
    split = fields.get("split", "")
    return Entry(
        rgb=rgb,
        depth=depth,
        labels=labels,
        split=SPLIT_FOLDERS.get(split.lower(), split),
        group=fields.get("group", ""),
        subject=fields.get("subject", ""),
        camera=fields.get("camera", ""),
    )
