"""RGB and depth by the names of their files: `{label}/{name}_rgb.mp4` with `{label}/{name}_depth.mkv`."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import Holdout
from kinema.datasets.prepared import (
    HOLDOUT,
    SPLIT_WORDS,
    Prepared,
    check_target,
    examples,
    finish,
    hold_out,
    not_held_out,
)
from kinema.errors import ManifestError
from kinema.modality import MODALITIES, DepthFacts, Modality
from kinema.video.image_files import PICTURE_SUFFIXES
from kinema.video.scan import scan

COLUMNS = ("group", "subject", "camera", "split")
"""Fields that fill a column of the manifest, beside the labels."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """Names of files as a pattern.

    Args:
        text: as the user wrote it.
        fields: names of its fields, each once, in their order; those without a name are left out.
        fixed: how many of its characters are no field.
        shortest, longest: where a name fits in several ways, its fields as short, and as long, as they can be from the
            first on; where the two agree, there is one way.
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
        """What the fields stand for in a path, or None.

        Raises:
            ManifestError: the path fits in more than one way.
        """
        short, long = (pattern.fullmatch(path) for pattern in (self.shortest, self.longest))
        if short is None or long is None:
            return None
        for number, field in enumerate(self.fields):
            if short[f"f{number}"] != long[f"f{number}"]:
                raise ManifestError(
                    f"{path}: fits {self.text!r} in several ways, {field} may be {short[f'f{number}']!r} or "
                    f"{long[f'f{number}']!r}; put fixed characters between the fields, or write {{FIELD:d}} for digits"
                )
        return {field: short[f"f{number}"].strip() for number, field in enumerate(self.fields)}


def parse_template(text: str) -> Template:
    """A template from its text: `{field}` is one or more characters but no slash, `{field:d}` one or more digits.

    Raises:
        ManifestError: the text is no template, has no label, or names a single picture.
    """
    try:
        parts = list(Formatter().parse(text.removeprefix("./").rstrip("/")))
    except ValueError as error:
        raise ManifestError(f"template {text!r}: {error}; a field is written {{name}}") from error
    fields: list[str] = []
    short = long = ""
    for literal, field, form, conversion in parts:
        short, long = short + re.escape(literal), long + re.escape(literal)
        if field is None:
            continue
        if conversion or form not in ("", "d") or not re.fullmatch(r"(\w+(\.\w+)?)?", field):
            raise ManifestError(
                f"template {text!r}: {{{field}}} is no field; there are {{name}}, and {{name:d}} for digits"
            )
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
        raise ManifestError(f"template {text!r}: has no {{label}}; say which part of the path is the class")
    last = "".join(literal for literal, *_ in parts).rsplit("/", 1)[-1]
    if Path(f"x{last}").suffix.lower() in PICTURE_SUFFIXES:
        raise ManifestError(f"template {text!r}: names a picture; end it with the folder that holds a clip's pictures")
    if text.startswith("/"):
        raise ManifestError(f"template {text!r}: begins with a slash, but templates are relative to --root")
    return Template(
        text=text,
        fields=tuple(fields),
        fixed=sum(len(literal) for literal, *_ in parts),
        shortest=re.compile(short),
        longest=re.compile(long),
    )


def prepare_templates(
    root: Path,
    out: Path,
    *,
    rgb: str = "",
    depth: str = "",
    holdout: Holdout = HOLDOUT,
    depth_facts: DepthFacts | None = None,
) -> Prepared:
    """Make a manifest of the files, and folders of pictures, whose paths below the root fit a template.

    The fields `label` (or `label.verb`, `label.noun`, ...), `group`, `subject`, `camera` and `split` fill columns; all
    others only match. RGB and depth belong together where all fields that both templates name agree. A sample that has
    only one of the two keeps its line. A path that fits both templates belongs to the one with more fixed characters.

    Args:
        root: the folder.
        out: the CSV to write; the JSON comes beside it.
        rgb, depth: templates; one may be left out.
        holdout: the split, where no template has the field `split`.
        depth_facts: what the numbers of 16-bit depth mean.

    Raises:
        ManifestError: a template is none, fits nothing, or fits two files of one modality for the same sample.
    """
    check_target(out)
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that the templates begin in")
    templates: dict[Modality, Template] = {
        modality: parse_template(text) for modality, text in zip(MODALITIES, (rgb, depth), strict=True) if text
    }
    shared = _shared_fields(templates)
    there = scan(root)
    made = (out.resolve(), out.with_suffix(".json").resolve())
    others = [path for path in there.others if path.suffix not in (".csv", ".json") or path.resolve() not in made]
    sources = frozenset(path.relative_to(root).as_posix() for path in there.sources)
    paths = [path.relative_to(root).as_posix() for path in sorted((*there.sources, *others))]
    matched, both = _match(templates, paths, sources)
    notes = _field_notes(templates)
    if both:
        notes.append(
            f"{len(both)} paths fit both templates and were taken by the one with more fixed characters: "
            f"{examples(both)}"
        )
    samples: dict[tuple[str, ...], dict[Modality, str]] = {}
    for path, (modality, fields) in matched.items():
        key = tuple(fields[field] for field in shared) if len(templates) == 2 else (path,)
        sample = samples.setdefault(key, {})
        if modality in sample:
            raise ManifestError(
                f"{root}: {sample[modality]} and {path} are both the {modality} of one sample by "
                f"{', '.join(shared)}; give the templates a field that tells them apart"
            )
        sample[modality] = path
    entries = []
    for sample in samples.values():
        fields = {name: value for path in reversed(sample.values()) for name, value in matched[path][1].items()}
        entries.append(_entry(sample.get("rgb", ""), sample.get("depth", ""), fields))

    if len(templates) == 2:
        for modality, partner in (("rgb", "depth"), ("depth", "rgb")):
            alone = [entry.rgb or entry.depth for entry in entries if not getattr(entry, partner)]
            if alone:
                notes.append(
                    f"{len(alone)} samples have {modality} but no {partner}; their lines stay, with {partner} empty: "
                    f"{examples(alone)}"
                )
    left = [path for path in paths if path not in matched]
    if left:
        notes.append(f"{len(left)} files or folders of pictures fit no template and were left out: {examples(left)}")
    if any("split" in template.fields for template in templates.values()):
        notes += not_held_out(holdout)
    else:
        entries, said = hold_out(entries, holdout)
        notes += said
    return finish(entries, out, base=root, corpus=root.resolve().name, depth=depth_facts, notes=notes)


def _is_label(field: str) -> bool:
    return field == LABEL or field.startswith(f"{LABEL}.")


def _shared_fields(templates: Mapping[Modality, Template]) -> tuple[str, ...]:
    """Fields that all templates name; two templates need them, and the same labels."""
    if not templates:
        raise ManifestError("there is no template; give one for rgb, for depth, or for both")
    first, *_ = templates.values()
    *_, last = templates.values()
    if first.heads != last.heads:
        raise ManifestError(
            f"templates {first.text!r} and {last.text!r}: name different labels ({', '.join(sorted(first.heads))}; "
            f"{', '.join(sorted(last.heads))}); both need the same"
        )
    return tuple(field for field in first.fields if field in last.fields)


def _match(
    templates: Mapping[Modality, Template], paths: list[str], sources: frozenset[str]
) -> tuple[dict[str, tuple[Modality, dict[str, str]]], list[str]]:
    """Modality and fields of each path that fits a template, and the paths that fit both.

    Files that are no sources by their suffix count only where a template spells that suffix out.
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
                raise ManifestError(f"{path}: fits both templates, so whether it is RGB or depth cannot be known")
            fits.sort(key=lambda fit: -fixed[fit[0]])
        if fits:
            matched[path] = fits[0]
    for modality, template in templates.items():
        if modality not in {taken for taken, _ in matched.values()}:
            there = f"there is {paths[0]}" if paths else "the folder is empty"
            raise ManifestError(f"template {template.text!r}: fits nothing; {there}")
    return matched, both


def _field_notes(templates: Mapping[Modality, Template]) -> list[str]:
    """A misspelt field only matches, which a user must hear."""
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
            raise ManifestError(f"{rgb or depth}: {head} is empty")
    split = fields.get("split", "")
    return Entry(
        rgb=rgb,
        depth=depth,
        labels=labels,
        split=SPLIT_WORDS.get(split.lower(), split),
        group=fields.get("group", ""),
        subject=fields.get("subject", ""),
        camera=fields.get("camera", ""),
    )
