"""Former place of `kinema.data.duplicates`, under which it can still be imported."""

import sys

import kinema.data.duplicates

sys.modules[__name__] = kinema.data.duplicates
