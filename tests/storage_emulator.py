"""gcp-storage-emulator with what TensorStore needs of Google Cloud Storage besides.

A download says which generation of the object it is, and many may ask at once. Run as a program,
with the arguments of `python -m gcp_storage_emulator`.
"""

from __future__ import annotations

import http.server
import sys
from typing import Any

from gcp_storage_emulator.__main__ import main
from gcp_storage_emulator.handlers import objects

_download = objects.download


def download(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    _download(request, response, storage, *args, **kwargs)
    if response.status < 300:
        bucket, name = request.params["bucket_name"], request.params["object_id"]
        response["x-goog-generation"] = storage.get_file_obj(bucket, name)["generation"]


if __name__ == "__main__":
    objects.download = download
    http.server.HTTPServer.request_queue_size = 128
    sys.exit(main())
