"""Artifacts on S3-compatible storage: the second copy of a store, from which other machines fetch what they lack.

<url>/artifacts/<stage>/<fingerprint>/artifact.json          the manifest, put last: without it there is no artifact
<url>/artifacts/<stage>/<fingerprint>/<content>/<path>       its files; a bank in it is plain Zarr v3

`content` is a digest of the manifest's list of files (paths, sizes, SHA-256). So whoever sends the same bytes sends
them to the same place, whoever made other bytes of the same fingerprint to another, and a file that is there with its
size need not be sent again: objects appear whole or not at all, and nobody sends a file that is not as its manifest
says.
Local directories stay the place to work in.
"""

from storage.remote._errors import RemoteError as RemoteError
from storage.remote._remote import Remote as Remote
from storage.remote._remote import default_remote as default_remote
