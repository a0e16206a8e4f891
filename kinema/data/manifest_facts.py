"""Facts of a dataset, in the JSON beside its manifest."""

import json
from pathlib import Path
from typing import Any, cast, get_args

from kinema.data.names import is_unicode, normalize
from kinema.errors import ManifestError
from kinema.files import read_json
from kinema.modality import DepthEncoding, DepthFacts


def read_facts(path: Path) -> dict[str, Any]:
    """Return the fields of a `Manifest` that its JSON holds.

    Raises:
        ManifestError: A field is missing, or the file cannot be parsed.
    """
    try:
        facts = read_json(path)
        depth = facts.get("depth")
        if not is_unicode(json.dumps(facts, ensure_ascii=False)):
            raise ValueError("a text has half a character; write the names in UTF-8")
        return {
            "classes": {
                head: tuple(normalize(str(name)) for name in names) for head, names in facts["classes"].items()
            },
            "dataset": str(facts["corpus"]),
            "version": str(facts["version"]),
            "declared": {normalize(str(split)): int(count) for split, count in facts["declared"].items()},
            "unlabeled": tuple(normalize(str(split)) for split in facts.get("unlabelled", ())),
            "mirrored": None
            if facts.get("mirrored") is None
            else tuple((normalize(first), normalize(second)) for first, second in facts["mirrored"]),
            "ungrouped": int(facts.get("ungrouped", 0)),
            "depth_encoding": _parse_encoding(facts.get("depth_encoding")),
            "depth": None
            if depth is None
            else DepthFacts(
                unit_mm=depth["depth_unit"],
                near=depth["depth_range"][0],
                far=depth["depth_range"][1],
                coverage=depth["coverage"],
            ),
        }
    except KeyError as error:
        raise ManifestError(f"{path}: field {error} is missing", path=path, field=str(error.args[0])) from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ManifestError(
            f"{path}: cannot be parsed ({error})", path=path, field=getattr(error, "field", None)
        ) from error


def _parse_encoding(stored: object) -> DepthEncoding | None:
    for encoding in get_args(DepthEncoding):
        if stored == encoding:
            return cast(DepthEncoding, encoding)
    if stored is None:
        return None
    raise ValueError(f"depth_encoding={stored!r}; expected {' or '.join(get_args(DepthEncoding))}")
