"""Classes that mirroring exchanges: what the user declares, what the names tell, and what has to be asked."""

from collections.abc import Mapping, Sequence

from kinema.data.manifest import Manifest
from kinema.data.names import normalize
from kinema.errors import ManifestError, did_you_mean
from kinema.transforms.mirroring import mirrored_pair, questionable_pairs


def parse_mirrored(text: str, classes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]] | None:
    """Return the pairs of `a=b,c=d`, an empty list for `none`, and None for an empty text.

    Raises:
        ManifestError: A name is not a class of the same task head.
    """
    rest = "" if text.strip() == "none" else normalize(text.strip())
    pairs: list[tuple[str, str]] = []
    while rest:
        pair = next(
            (
                (first, second)
                for names in classes.values()
                for first in names
                if rest.startswith(f"{first}=")
                for second in names
                if second != first and f"{rest},".startswith(f"{first}={second},")
            ),
            None,
        )
        if pair is None:
            wrong = [name.strip() for name in rest.partition(",")[0].partition("=")[::2]]
            known = [name for names in classes.values() for name in names]
            name = next((name for name in wrong if name not in known), rest)
            problem = f"--mirrored: {name!r} is not a class; {did_you_mean(name, known).rstrip('?')}"
            raise ManifestError(f"{problem}. Write CLASS=CLASS, or none.", field="mirrored")
        pairs.append(pair)
        rest = rest[len(pair[0]) + len(pair[1]) + 2 :].lstrip()
    return pairs if text.strip() else None


def exchanged_pair(manifest: Manifest) -> tuple[str, str] | None:
    """Return the first two classes that mirroring exchanges, as declared, or else by their names."""
    if manifest.mirrored is not None:
        return next(iter(manifest.mirrored), None)
    return next(filter(None, map(mirrored_pair, manifest.classes.values())), None)


def undecided_pairs(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the pairs of classes that mirroring may exchange, which the user has to decide."""
    if manifest.mirrored is not None or exchanged_pair(manifest):
        return []
    return [pair for names in manifest.classes.values() for pair in questionable_pairs(names)]


def mirroring_notes(manifest: Manifest) -> list[str]:
    """Return a note for each task head with mirrored classes, or one with the question whether classes are."""
    heads = [(head, mirrored_pair(names)) for head, names in manifest.classes.items()]
    if manifest.mirrored is not None:
        heads = [("declared", pair) for pair in manifest.mirrored[:1]]
    notes = [
        f"{pair[0]!r} and {pair[1]!r} ({head}) are mirror images of each other: turn mirroring off for "
        "training, --data.augmentation.flip 0"
        for head, pair in heads
        if pair is not None
    ]
    pairs = undecided_pairs(manifest)
    if pairs:
        first, second = pairs[0]
        more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
        notes.append(
            f"does mirroring turn {first!r} into {second!r}{more}? Prepare again with --mirrored "
            f"'{first}={second}', or with --mirrored none"
        )
    return notes
