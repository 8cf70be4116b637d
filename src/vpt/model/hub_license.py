"""Licenses as the metadata of a model card names them."""

import re

# The identifiers of https://huggingface.co/docs/hub/repositories-licenses. The Hub refuses a card with any other.
_IDENTIFIERS = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda",
    "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
    "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2",
    "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++",
    "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
_MAX_NAME = 64  # characters


def hub_license(license: str | None) -> tuple[str | None, str | None]:
    """Return `license` and `license_name` of a model card.

    Args:
        license: Identifier or free text, or None.

    Returns:
        The identifier and None; for a text that is none of the Hub's, "other" and the start of the text as a name.
    """
    if license is None:
        return None, None
    identifier = license.strip().lower()
    if identifier in _IDENTIFIERS:
        return identifier, None
    name = re.sub(r"[^a-z0-9.]+", "-", identifier)[:_MAX_NAME].strip("-.")
    return "other", name or "unnamed"
