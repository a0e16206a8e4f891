"""Groups found in file names: clips of one recording, film, person or web video, which a split must not divide."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePosixPath

from kinema.data.manifest import Entry
from kinema.data.names import normalize, split_name
from kinema.datasets.hmdb51 import CLASSES as HMDB_ACTIONS
from kinema.datasets.prepared import note_names
from kinema.datasets.templates import parse_template
from kinema.errors import ManifestError, examples
from kinema.video.streams import split_stream

COPY = re.compile(
    r"(?P<base>.+?)(?:[ _-]+(?:copy|kopie|copie|copia|duplicate)(?:[ _]*\(?\d+\)?)?|[ _]*\((?P<number>\d+)\)"
    r"|[-_. ](?:rgb|depth|ir|flip|flipped|hflip|mirrored|aug|augment|augmented|noise|noisy|blur|blurred|rot|rotated"
    r"|crop|cropped|scaled|resized)[-_]?\d*)",
    re.IGNORECASE,
)
"""Name of a copy or a variant of `base`. A number in brackets marks a copy only if `base` exists too."""
NAMED = {
    "HMDB": re.compile(r"(?P<group>.+)_[fuhl]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:bad|med|goo)_\d+"),
    "Kinetics": re.compile(
        r"(?:v_)?(?:(?P<group>[\w-]{11})_\d{6}(?:_\d{6})?"
        r"|(?P<group2>(?=[\w-]{0,10}[A-Z])(?=[\w-]{0,10}[a-z])(?=[\w-]{0,10}\d)[\w-]{11})_\d+(?:\.\d+)?_\d+(?:\.\d+)?)"
    ),
    "UCF": re.compile(r"(?P<group>(?:v_)?.+_g\d+)_c\d+|(?P<group2>v_[^_]+_\d+)_\d+"),
    "NTU": re.compile(r"S\d{3}C\d{3}(?P<group>P\d{3})R\d{3}A\d{3}"),
    "person": re.compile(
        r"(?:.*[-_. ])?(?P<group>(?:person|subject|subj|actor|user|performer|participant)[-_]?\d+)(?:[-_. ].*)?",
        re.IGNORECASE,
    ),
    "GoPro": re.compile(r"(?:G[HXL]\d\d|GP\d\d|GOPR)(?P<group>\d{4})"),
    "part": re.compile(
        r"(?P<group>.*\w\W*?)[-_. (]+(?:part|pt|teil|parte|partie|clip|cut|seg|segment|chunk|scene|shot|split|piece"
        r"|trim)s?[-_. ]*\(?\d+\)?(?:[-_ ]?of[-_ ]?\d+)?",
        re.IGNORECASE,
    ),
    "times": re.compile(r"(?P<group>.+?)[-_ ]+\(?\d+(?:\.\d+)?s?[-_]\d+(?:\.\d+)?s\)?|(?P<group2>.+)_\d{5,6}_\d{5,6}"),
    "subject": re.compile(
        r"(?:[A-Za-z]+_)?(?:[a-z]\d+_)*?(?P<group>[ps]\d+)(?:_.+)?|(?P<group2>sub-?\d+)_.*", re.IGNORECASE
    ),
    "letter": re.compile(r"(?P<group>.*\d)[-_ ]?\(?[a-f]\)?", re.IGNORECASE),
    "number": re.compile(r"(?P<group>.*\d\D*?)[-_. ]+\(?\d{1,4}\)?"),
}
"""Names by style. The last five are common in names that mean something else, so that they are used with care."""
CAREFUL = frozenset({"part", "times", "subject", "letter", "number"})
QUANTITY = re.compile(
    r"\d+(?:[.,]\d+)?(?:[^\W\d_]{2,}|[gmsxpkdhl]|[ _-]+(?:kg|lbs?|cm|mm|km|m|reps?|secs?|min|fps|hz|deg))(?![^\W_])",
    re.IGNORECASE,
)
"""Number with a unit, such as `10kg`, which numbers no recording."""
DATE = re.compile(r"(?:19|20)\d\d[-_]?\d\d[-_]?\d\d")


def add_source_groups(entries: Sequence[Entry], *, has_split: bool) -> tuple[list[Entry], list[str]]:
    """Return the entries with the groups that their file names tell, and notes about them.

    The entries are unchanged if no two files share a group, or if no class has two groups, so that any split would
    divide one.
    """
    labels = {entry.rgb or entry.depth: " ".join(entry.labels.values()) for entry in entries}
    by_file, styles = find_groups(labels)
    members = Counter(by_file.values())
    if not members or max(members.values()) < 2:
        return list(entries), []
    what = f"found in the names ({', '.join(styles)} style)"
    grouped = [replace(entry, group=by_file.get(entry.rgb or entry.depth, "")) for entry in entries]
    found = f"groups {what}: {len(members)} groups of {members.total()} files, e.g. {examples(sorted(members))}"
    if has_split:
        return grouped, [found]
    files: dict[str, list[str]] = defaultdict(list)
    for file, label in labels.items():
        files[label].append(file)
    single = [
        label
        for label, names in sorted(files.items())
        if len(names) > 1 and len({by_file.get(name, name) for name in names}) == 1
    ]
    if len(single) == sum(len(names) > 1 for names in files.values()):
        problem = f"every class has a single group {what}: the split divides recordings"
        return list(entries), [f"{problem}, e.g. {examples(sorted(members))}"]
    notes = [f"{found}; they are kept together (--keep-together none divides them)"]
    if single:
        problem = "classes have a single group and cannot be held out without dividing a recording"
        notes.append(f"{len(single)} {problem}: {examples(single)}")
    return grouped, notes


def name_groups(entries: Sequence[Entry], text: str) -> tuple[list[Entry], list[str]]:
    """Return the entries with the groups that a template of their file names tells, and a note on other names.

    The template is compared with the file's name without its suffix, or with as many folders more as it has slashes.

    Raises:
        ManifestError: The template is malformed or matches no name, or samples have a group already.
    """
    template = parse_template(text, required="group")
    if any(entry.group for entry in entries):
        raise ManifestError("--group: the samples have groups already. Pass one of both.", field="group")
    grouped, others = [], []
    for entry in entries:
        file = entry.rgb or entry.depth
        folders = PurePosixPath(file).parts[:-1]
        fields = template.match("/".join((*folders[len(folders) - template.text.count("/") :], _stem(file))))
        grouped.append(entry if fields is None else replace(entry, group=fields["group"]))
        others += [file] if fields is None else []
    if len(others) == len(entries):
        problem = f"--group {text!r}: matches no name, e.g. {_stem(others[0])!r}"
        raise ManifestError(f"{problem}. Describe the names without suffix.", field="group")
    return grouped, note_names(others, "files do not match --group and have no group")


COPY_WORD = re.compile(r"cop(y|ie|ia)|kopi|flip|mirror|aug", re.IGNORECASE)
"""Word in the name of a copy or a variant."""


def find_groups(labels: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the group of each file whose name tells one, and the styles of these names.

    Args:
        labels: Class of each file.
    """
    stems = {file: _stem(file) for file in labels}
    names = set(stems.values())
    bases = {file: _base(stem, names) for file, stem in stems.items()}
    by_file: dict[str, str] = {}
    styles = []
    for style, pattern in NAMED.items():
        matched = {
            file: group
            for file, base in bases.items()
            if file not in by_file and (group := _group(base, pattern, style))
        }
        if style in ("letter", "number"):  # recordings in two folders may have one number
            matched = {file: "/".join((*_folders(file), group)) for file, group in matched.items()}
        if style in CAREFUL:
            matched = _with_care(matched, labels, style)
        by_file |= matched
        styles += [style] if matched else []
    subfolders = _with_care({f: g for f, g in _subfolders(labels).items() if f not in by_file}, labels, "subfolder")
    by_file |= subfolders
    styles += ["subfolder"] if subfolders else []
    variants: dict[tuple[PurePosixPath, str], list[str]] = defaultdict(list)
    for file, base in bases.items():
        if file not in by_file:
            variants[PurePosixPath(file).parent, base].append(file)
    copies = {file: base for (_, base), files in variants.items() if len(files) > 1 for file in files}
    copies = {file: base for file, base in copies.items() if base in names or stems[file] != base}
    # `video.mp4`, `video (1).mp4` and so on are downloads of one name, where a class has no other files.
    kept = {file: by_file.get(file) or copies.get(file) or file for file in labels}
    several = {label for label in labels.values() if len({kept[f] for f in labels if labels[f] == label}) > 1}
    sure = {copies[file] for file in copies if COPY_WORD.search(stems[file])}
    copies = {file: base for file, base in copies.items() if labels[file] in several or base in sure}
    return by_file | copies, styles + (["copy"] if copies else [])


def _folders(file: str) -> tuple[str, ...]:
    """Return the folders of a file without that of its split."""
    folders = PurePosixPath(file).parent.parts
    return folders[1:] if folders and split_name(folders[0]) else folders


def _subfolders(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the folders of each file below the folder of its class."""
    by_label: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for file, label in labels.items():
        by_label[label][file] = _folders(file)
    found: dict[str, str] = {}
    for folders in by_label.values():
        ends = zip(min(folders.values()), max(folders.values()), strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))
        found |= {file: "/".join(parts[shared:]) for file, parts in folders.items() if len(parts) > shared}
    return found


def _with_care(matched: Mapping[str, str], labels: Mapping[str, str], style: str) -> dict[str, str]:
    """Return the groups of the classes in which they are plausible: at least two groups, one with several files.

    In a class with a single one, such as `wave_clip_1`, `wave_clip_2`, the number may be that of the recording, unless
    the recording has another number, as in `wave_01_clip_2`.
    """
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for file, group in matched.items():
        groups[labels[file]][group] += 1
    plausible = {label for label, counts in groups.items() if len(counts) > 1 and max(counts.values()) > 1}
    if style == "part":
        plausible |= {
            label
            for label, counts in groups.items()
            if all(count > 1 and re.search(r"\d", group) and group != label for group, count in counts.items())
        }
    return {file: group for file, group in matched.items() if labels[file] in plausible}


def _group(base: str, pattern: re.Pattern[str], style: str) -> str:
    match = pattern.fullmatch(base)
    if match is None:
        return ""
    group = next(filter(None, (match[name] for name in pattern.groupindex)), "").rstrip("-_. ")
    if style == "HMDB":
        actions = [action for action in HMDB_ACTIONS if group.endswith(f"_{action}")]
        return group.removesuffix(f"_{max(actions, key=len)}") if actions else group
    if style == "GoPro":
        return f"GoPro {group}"
    if style in ("Kinetics", "number") and DATE.search(group):  # recordings of one day
        return ""
    if style == "number" and not re.search(r"\d", QUANTITY.sub("", group)):
        return ""
    return group


def _stem(file: str) -> str:
    path = PurePosixPath(normalize(split_stream(file)[0]))
    return path.stem if re.fullmatch(r"\.[A-Za-z]\w{0,4}", path.suffix) else path.name


def _base(stem: str, names: set[str]) -> str:
    """Return the name of the recording of which a file is a copy or a variant; the name itself if of none."""
    base = stem.removeprefix("Copy of ")
    while match := COPY.fullmatch(base):
        if match["number"] and match["base"] not in names:
            break
        base = match["base"]
    return base
