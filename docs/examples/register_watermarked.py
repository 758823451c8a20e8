"""Uploads a picture, has it watermarked, and registers the watermark: `python register_watermarked.py photo.jpg ben/2026/photo.jpg`.

TOKEN in the environment is the account's token, API the address of the API. Only the standard library is needed.
"""

import json
import os
import sys
import urllib.request
from pathlib import Path

API = os.environ.get("API", "http://127.0.0.1:8000/api/v1")
TOKEN = os.environ["TOKEN"]


def call(method, path, body, content_type="application/json"):
    headers = {"Authorization": f"Token {TOKEN}", "Content-Type": content_type}
    with urllib.request.urlopen(urllib.request.Request(f"{API}{path}", body, headers, method=method)) as answer:
        return json.load(answer)


picture, path = Path(sys.argv[1]), sys.argv[2]
uploaded = call("POST", "/uploads/", picture.read_bytes(), "image/jpeg")
watermarked = call("POST", "/watermarking/", json.dumps({"url": uploaded["url"]}).encode())
media = call("PUT", f"/media/{path}", json.dumps({"url": watermarked["registration"]}).encode())
print(json.dumps({"publish": watermarked["watermarked"], "media": media["url"], "registration": watermarked["registration"]}))
