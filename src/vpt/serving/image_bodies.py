"""The image in the body of a request: the file itself, a form with the file, or JSON with the file in base64."""

import base64
import binascii
from collections.abc import AsyncGenerator

from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vpt.serving.responses import RequestError

_MAX_FIELDS = 16  # of a form, beside the file
_WANTED = 'send the image file itself, a form with one file, or JSON: {"image": "BASE64"}'


async def find_image(request: Request, body: bytes) -> bytes:
    """Return the image file in a body.

    Args:
        request: The request.
        body: Its body.

    Returns:
        Contents of the image file.

    Raises:
        RequestError: A form or JSON does not hold one image.
    """
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "multipart/form-data":
            return await _read_form(request, body)
        case "application/json":
            return _read_json(body)
        case _:  # curl calls any file a form of another kind
            return body


async def _read_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=_MAX_FIELDS)
    try:
        form = await parser.parse()
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise RequestError(400, f"the form has no file; {_WANTED}")
        return await files[0].read()
    except MultiPartException as error:
        raise RequestError(400, f"the form cannot be read: {error.message} Expected: {_WANTED}") from error
    finally:  # `form.close()` does not know the file of a part that breaks off
        for file in getattr(parser, "_files_to_close_on_error", ()):
            file.close()


def _read_json(body: bytes) -> bytes:
    try:
        values = from_json(body)
    except ValueError as error:
        raise RequestError(400, f"the JSON cannot be read ({str(error)[:200]}); {_WANTED}") from error
    text = values.get("image") if isinstance(values, dict) else None
    if not isinstance(text, str):
        raise RequestError(400, f"the JSON has no text under the key image; {_WANTED}")
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"the image in the JSON is no base64 ({error}); {_WANTED}") from error
