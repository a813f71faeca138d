"""Artifacts on S3-compatible storage: the second copy of a store, from which other machines fetch missing artifacts.

<url>/artifacts/<stage>/<fingerprint>/artifact.json          the manifest, put last: without it there is no artifact
<url>/artifacts/<stage>/<fingerprint>/<content>/<path>       its files; a bank in it is plain Zarr v3

`content` is a digest of the manifest's list of files (paths, sizes, SHA-256). So the same bytes go to the same
place, other bytes of the same fingerprint to another. A file that is there with its size is not sent again: objects
appear whole or not at all, and a file is sent only if it is as its manifest says. Work happens in local directories.
"""

from storage.remote._errors import RemoteError as RemoteError
from storage.remote._remote import Remote as Remote
from storage.remote._remote import default_remote as default_remote
