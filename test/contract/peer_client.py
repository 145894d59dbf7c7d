"""A second DRACOON client, written independently of the one in this repository, for interoperability tests.

It keeps the habits of a widely used scripting client: where credentials go, the order of part URLs, form field names,
its own Content-Range dialect, headers that stay on a shared session, misspelt JSON fields. What the server must put up
with is therefore exercised for real. One habit is left out on purpose: this client does check the authentication tag.

Standard library only. RSA is done by the openssl program, AES by libcrypto.

It is driven over standard input and output: one JSON object per line, {"id", "call", "args"} in, {"id", "result"} or
{"id", "error"} out. "call" names a public method of Peer. The argument is a directory for RSA keys worth keeping.
"""

import base64
import ctypes
import gzip
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import quote, urlencode, urlsplit

CLIENT_ID = "dracoon_legacy_scripting"
USER_AGENT = "dracoon-python-1.13.0"
CHUNK = 32 * 1024 * 1024
CRYPT_STEP = 1024 * 1024


# --- HTTP -------------------------------------------------------------------------------------------------------------


class HttpError(Exception):
    def __init__(self, response, what):
        super().__init__(f"{what}: {response.status} {response.body[:300]!r}")
        self.status = response.status
        self.json = response.json


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body
        try:
            self.json = json.loads(body)
        except ValueError:
            self.json = None


class Session:
    """Headers shared by all requests, and connections kept open. Redirects are not followed."""

    def __init__(self, watch):
        self.headers = {
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive",
            "User-Agent": USER_AGENT,
        }
        self._watch = watch
        self._idle = {}
        self._lock = threading.Lock()

    def send(self, method, url, body=None, headers=None, sink=None):
        """`body` is bytes, or an iterable for chunked transfer encoding. `sink` takes the content of a 200 or 206."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        origin = (parts.scheme, parts.netloc)
        sent = {**self.headers, **(headers or {})}
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            connection = idle.pop() if idle else None
        if connection is None:
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = kind(parts.netloc, timeout=60)
        connection.request(method, path, body=body, headers=sent, encode_chunked=not isinstance(body, (bytes, type(None))))
        reply = connection.getresponse()
        if sink is not None and reply.status in (200, 206):
            length = 0
            while piece := reply.read(CRYPT_STEP):
                length += len(piece)
                sink(piece)
            content = b""
            if int(reply.headers["Content-Length"]) != length:
                raise ValueError("download: wrong Content-Length")
        else:
            content = reply.read()
        if reply.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        with self._lock:
            self._idle[origin].append(connection)
        response = Response(reply.status, reply.headers, content)
        self._watch(method, url, response)
        return response


class Watcher:
    """Notes every answer that a strict client would stumble over."""

    DATES = re.compile(r"(At|Date|^time|^timestamp\w+)$")
    DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
    PERMISSIONS = set(
        "manage read create change delete manageDownloadShare manageUploadShare "
        "readRecycleBin restoreRecycleBin deleteRecycleBin".split()
    )

    def __init__(self):
        self.findings = []
        self.requests = []

    def __call__(self, method, url, response):
        path = urlsplit(url).path
        self.where = f"{method} {path} -> {response.status}"
        self.requests.append(f"{method} {path}")
        media = response.headers.get("Content-Type", "").split(";")[0]
        if 300 <= response.status < 400:
            self.note("redirect")
        if response.status not in http.client.responses and response.status != 901:
            self.note("unregistered status")
        if "/api/" in path and response.status >= 400:
            if media != "application/json":
                self.note(f"error as {media!r}")
            elif response.json.get("code") != response.status or not isinstance(response.json.get("message"), str):
                self.note(f"error body {response.json}")
        if response.json is not None and media == "application/json":
            self.walk(response.json, "")

    def note(self, text):
        self.findings.append(f"{self.where}: {text}")

    def check(self, right, text):
        if not right:
            self.note(text)

    def walk(self, value, place):
        if value is None:
            self.note(f"null at {place}")
        elif isinstance(value, list):
            for item in value:
                self.walk(item, f"{place}[]")
        elif isinstance(value, dict):
            self.examine(value, place)
            for name, item in value.items():
                if self.DATES.search(name) and not isinstance(item, (dict, list)):
                    self.check(isinstance(item, str) and self.DATE.fullmatch(item), f"date {place}.{name}: {item!r}")
                self.walk(item, f"{place}.{name}")

    def examine(self, value, place):
        def integer(name):
            return type(value.get(name)) is int

        if "range" in value:
            self.check(isinstance(value.get("items"), list), f"range without items at {place}")
            value_range = value["range"]
            self.check(all(type(value_range.get(n)) is int for n in ("offset", "limit", "total")), f"range {value_range}")
        if place.endswith((".createdBy", ".updatedBy")) or "userType" in value:
            self.check(isinstance(value.get("avatarUuid"), str), f"no avatarUuid at {place}")
            self.check(value.get("userType") in ("internal", "external", "system", "deleted"), f"userType at {place}")
        if isinstance(value.get("permissions"), dict):
            flags = value["permissions"]
            right = set(flags) == self.PERMISSIONS and all(type(flag) is bool for flag in flags.values())
            self.check(right, f"permissions {flags}")
        if isinstance(value.get("encryptionInfo"), dict):
            info = value["encryptionInfo"]
            states = [info.get(name) for name in ("userKeyState", "roomKeyState", "dataSpaceKeyState")]
            self.check(all(state in ("none", "available", "pending") for state in states), f"encryptionInfo {info}")
        if value.get("type") in ("room", "folder", "file") and "parentPath" in value and "id" in value:
            self.check(integer("id") and isinstance(value.get("name"), str), f"node {value}")
            self.check(isinstance(value.get("isEncrypted"), bool), f"isEncrypted of {value}")
            outer = value["parentPath"]
            self.check(outer.startswith("/") and outer.endswith("/"), f"parentPath {outer}")
            self.check((outer == "/") != integer("parentId"), f"parentId of {value}")
            if value["type"] == "file":
                self.check(integer("size"), f"size of {value}")
                self.check(re.fullmatch(r"[0-9a-f]{32}", value.get("hash", "0" * 32)), f"hash of {value}")


# --- Cryptography -----------------------------------------------------------------------------------------------------

libcrypto = ctypes.CDLL("libcrypto.so.3")
for _name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm", "EVP_aes_256_cbc"):
    getattr(libcrypto, _name).restype = ctypes.c_void_p


class Aes:
    """AES-256 in mode "gcm" or "cbc", either direction."""

    def __init__(self, mode, encrypting, key, iv):
        self._encrypting = encrypting
        self._context = ctypes.c_void_p(libcrypto.EVP_CIPHER_CTX_new())
        cipher = ctypes.c_void_p(getattr(libcrypto, f"EVP_aes_256_{mode}")())
        self._call("EVP_CipherInit_ex", cipher, None, key, iv, int(encrypting))

    def _call(self, name, *args):
        if getattr(libcrypto, name)(self._context, *args) != 1:
            raise ValueError("decryption failed" if name == "EVP_CipherFinal_ex" else name)

    def update(self, data):
        out = ctypes.create_string_buffer(len(data) + 16)
        length = ctypes.c_int()
        self._call("EVP_CipherUpdate", out, ctypes.byref(length), data, len(data))
        return ctypes.string_at(out, length.value)

    def final(self, tag=None):
        """Of GCM: takes the tag to check when decrypting."""
        if tag is not None:
            self._call("EVP_CIPHER_CTX_ctrl", 0x11, len(tag), tag)
        out = ctypes.create_string_buffer(32)
        length = ctypes.c_int()
        self._call("EVP_CipherFinal_ex", out, ctypes.byref(length))
        return ctypes.string_at(out, length.value)

    def tag(self):
        out = ctypes.create_string_buffer(16)
        self._call("EVP_CIPHER_CTX_ctrl", 0x10, 16, out)
        return out.raw

    def __del__(self):
        libcrypto.EVP_CIPHER_CTX_free(self._context)


def openssl(*args, data=None):
    run = subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if run.returncode != 0:
        raise ValueError(f"openssl {args[0]}: {run.stderr.decode(errors='replace').strip()}")
    return run.stdout


def b64(data):
    return base64.b64encode(data).decode()


def pem(label, der, newline="\n"):
    text = b64(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return newline.join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def unpem(text):
    return base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-----")))


def der(tag, *content):
    body = b"".join(content)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + len(body).to_bytes(size, "big") + body


def der_items(data):
    """The elements inside a constructed value, as (tag, content) pairs."""
    items = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        items.append((tag, data[at : at + length]))
        at += length
    return items


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray([first * 40 + second])
    for number in rest:
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.append(0x80 | number & 0x7F)
        out += bytes(reversed(septets))
    return bytes(out)


PBES2, PBKDF2 = oid("1.2.840.113549.1.5.13"), oid("1.2.840.113549.1.5.12")
AES_CBC = oid("2.16.840.1.101.3.4.1.42")
PRFS = {"sha1": oid("1.2.840.113549.2.7"), "sha256": oid("1.2.840.113549.2.9")}
NULL = der(5)

# How private keys have been locked over the years: hash, iterations, bytes of salt, how the hash is spelled out.
PROFILES = {
    "library": ("sha256", 2_048, 16, der(0x30, der(6, PRFS["sha256"]), NULL)),
    "legacy": ("sha1", 10_000, 128, b""),
    "current": ("sha1", 1_300_000, 20, b""),
    "explicit": ("sha1", 1_300_000, 20, der(0x30, der(6, PRFS["sha1"]))),
}


def protect(pkcs8, password, profile):
    digest, iterations, salt_length, prf = PROFILES[profile]
    salt, iv = secrets.token_bytes(salt_length), secrets.token_bytes(16)
    cipher = Aes("cbc", True, hashlib.pbkdf2_hmac(digest, password, salt, iterations, 32), iv)
    rounds = iterations.to_bytes(iterations.bit_length() // 8 + 1, "big")
    kdf = der(0x30, der(6, PBKDF2), der(0x30, der(4, salt), der(2, rounds), prf))
    scheme = der(0x30, der(6, PBES2), der(0x30, kdf, der(0x30, der(6, AES_CBC), der(4, iv))))
    sealed = der(0x30, scheme, der(4, cipher.update(pkcs8) + cipher.final()))
    return pem("ENCRYPTED PRIVATE KEY", sealed, "\r\n" if profile == "explicit" else "\n")


def unprotect(text, password):
    ((_, outer),) = der_items(unpem(text))
    (_, scheme), (_, sealed) = der_items(outer)
    (_, name), (_, params) = der_items(scheme)
    (_, kdf), (_, encryption) = der_items(params)
    (_, kdf_name), (_, kdf_params) = der_items(kdf)
    (_, cipher_name), (_, iv) = der_items(encryption)
    if (name, kdf_name, cipher_name) != (PBES2, PBKDF2, AES_CBC):
        raise ValueError("unknown key protection")
    (_, salt), (_, rounds), *more = der_items(kdf_params)
    prf = next((der_items(content)[0][1] for tag, content in more if tag == 0x30), PRFS["sha1"])
    digest = next(name for name, value in PRFS.items() if value == prf)
    key = hashlib.pbkdf2_hmac(digest, password, salt, int.from_bytes(rounds, "big"), 32)
    cipher = Aes("cbc", False, key, iv)
    return cipher.update(sealed) + cipher.final()


# Key pair version to: bits, hash of the mask generation function, version of the file keys made for it.
VERSIONS = {
    "A": (2048, "sha1", "A"),
    "RSA-4096": (4096, "sha256", "RSA-4096/AES-256-GCM"),
}


def rsa(operation, version, key_file, data):
    return openssl(
        "pkeyutl", f"-{operation}", *(["-pubin"] if operation == "encrypt" else []), "-inkey", key_file,
        "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256",
        "-pkeyopt", f"rsa_mgf1_md:{VERSIONS[version][1]}", data=data,
    )  # fmt: skip


class FileKey:
    """A plain file key: in memory only."""

    def __init__(self, key, iv, tag=None):
        self.key, self.iv, self.tag = key, iv, tag


# --- The client -------------------------------------------------------------------------------------------------------


def local_time(seconds):
    """Without a zone: a habit that servers have to bear."""
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")


class Peer:
    def __init__(self, keys):
        self._watcher = Watcher()
        self._api = Session(self._watcher)
        self._uploader = Session(self._watcher)  # never authorised; keeps what classic uploads put on it
        self._downloader = Session(self._watcher)
        self._dir = tempfile.mkdtemp(prefix="peer-")
        os.chmod(self._dir, 0o700)
        self._private = {}  # version to file of the unlocked key
        self._public = {}  # PEM to file
        self._keys = keys  # directory of plain PKCS#8 by label

    # Requests

    def _request(self, method, path, query=None, payload=None, what=None):
        url = f"{self._base}/api/v4{path}"
        if query:
            url += "?" + "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
        body = None if payload is None else json.dumps(payload).encode()
        headers = {} if payload is None else {"Content-Type": "application/json"}
        response = self._api.send(method, url, body, headers)
        if response.status >= 300:
            raise HttpError(response, what or f"{method} {path}")
        return response.json

    def raw(self, method, path, json_body=None, headers=None, authorised=True, body=None):
        """Any request; answers whatever comes back."""
        session = self._api if authorised else self._downloader
        data = json.dumps(json_body).encode() if json_body is not None else body.encode() if body is not None else None
        headers = {**({"Content-Type": "application/json"} if json_body is not None else {}), **(headers or {})}
        reply = session.send(method, path if path.startswith("http") else self._base + path, data, headers)
        found = {name.lower(): value for name, value in reply.headers.items()}
        return {"status": reply.status, "headers": found, "json": reply.json, "text": reply.body.decode(errors="replace")}

    def findings(self):
        found, self._watcher.findings = self._watcher.findings, []
        return sorted(set(found))

    def requests(self):
        seen, self._watcher.requests = self._watcher.requests, []
        return seen

    # Login

    def _form(self, path, fields, headers=None):
        headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return self._api.send("POST", self._base + path, urlencode(fields).encode(), headers)

    def _take_tokens(self, response):
        if response.status != 200:
            raise HttpError(response, "token")
        self.tokens = response.json
        if type(self.tokens["expires_in"]) is not int or not self.tokens["refresh_token"]:
            raise ValueError(f"tokens: {self.tokens}")
        self._api.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"

    def login(self, base, user, password, basic="standard"):
        self._base = base
        if basic == "standard":
            credentials = b64(f"{CLIENT_ID}:".encode())
        else:
            credentials = base64.urlsafe_b64encode(f"{CLIENT_ID}:".encode()).decode().rstrip("=")
        fields = {"grant_type": "password", "username": user, "password": password}
        self._take_tokens(self._form("/oauth/token", fields, {"Authorization": f"Basic {credentials}"}))
        paths = (
            "/user/account?more_info=false", "/public/system/info", "/public/system/info/auth/openid",
            "/public/system/info/auth/ad", "/config/info/defaults", "/config/info/infrastructure", "/config/info/general",
        )  # fmt: skip
        with ThreadPoolExecutor(len(paths)) as pool:
            account, system, openid, ad, defaults, infrastructure, general = pool.map(
                lambda path: self._request("GET", path), paths
            )
        self._user_id = account["id"]
        self._s3 = system["useS3Storage"]
        return {
            "tokens": self.tokens, "account": account, "system": system, "openid": openid, "ad": ad,
            "defaults": defaults, "infrastructure": infrastructure, "general": general,
        }  # fmt: skip

    def ping(self):
        return self.raw("GET", "/api/v4/user/ping")

    def refresh(self):
        """The credentials go into the form, and the old bearer token is still among the headers."""
        fields = {"grant_type": "refresh_token", "refresh_token": self.tokens["refresh_token"]}
        fields |= {"client_id": CLIENT_ID, "client_secret": ""}
        before = self.tokens
        self._take_tokens(self._form("/oauth/token", fields))
        return {"before": before, "after": self.tokens}

    def logout(self):
        statuses = []
        for hint in ("access_token", "refresh_token"):
            fields = {"client_id": CLIENT_ID, "client_secret": "", "token_type_hint": hint, "token": self.tokens[hint]}
            statuses.append(self._form("/oauth/revoke", fields).status)
        return statuses

    # Key pairs

    def _store(self, text):
        handle, path = tempfile.mkstemp(dir=self._dir)
        with os.fdopen(handle, "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return path

    def make_key_pair(self, password, version="RSA-4096", profile="library", encoding="ascii", label=None):
        """The same `label` means the same RSA key, locked anew. Making keys is slow, so tests share some."""
        kept = os.path.join(self._keys, f"{version}-{label}")
        if label is not None and os.path.exists(kept):
            with open(kept, "rb") as file:
                pkcs8 = file.read()
        else:
            bits = VERSIONS[version][0]
            made = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}")
            pkcs8 = openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", data=made)
            if label is not None:
                os.replace(self._store(pkcs8), kept)
        public = openssl("pkey", "-inform", "DER", "-pubout", data=pkcs8).decode()
        secret = password.encode(encoding)
        if profile.startswith("openssl"):
            prf = [] if profile == "openssl" else ["-v2prf", "hmacWithSHA1"]
            secret_file = self._store(secret)
            args = ("pkcs8", "-topk8", "-inform", "DER", "-v2", "aes-256-cbc", *prf, "-passout", f"file:{secret_file}")
            locked = openssl(*args, data=pkcs8).decode()
        else:
            locked = protect(pkcs8, secret, profile)
        self._private[version] = self._store(pem("PRIVATE KEY", pkcs8))
        return {
            "privateKeyContainer": {"version": version, "privateKey": locked},
            "publicKeyContainer": {"version": version, "publicKey": public},
        }

    def create_key_pair(self, password, **options):
        self._request("POST", "/user/account/keypair", payload=self.make_key_pair(password, **options))

    def get_key_pair(self, version=None):
        return self._request("GET", "/user/account/keypair", {"version": version} if version else None)

    def delete_key_pair(self, version=None):
        self._request("DELETE", "/user/account/keypair", {"version": version} if version else None)

    def unlock(self, password, version=None, encoding="ascii"):
        """Opens the own key pair, and checks that both halves belong together."""
        pair = self.get_key_pair(version)
        found = pair["privateKeyContainer"]["version"]
        pkcs8 = unprotect(pair["privateKeyContainer"]["privateKey"], password.encode(encoding))
        public = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", data=pkcs8)
        if public != unpem(pair["publicKeyContainer"]["publicKey"]):
            raise ValueError("the halves of the key pair do not belong together")
        self._private[found] = self._store(pem("PRIVATE KEY", pkcs8))
        return found

    def open_with_openssl(self, private_key, password_file):
        """What the openssl program says about a locked private key that someone else made."""
        key_file = self._store(private_key)
        plain = openssl("pkcs8", "-in", key_file, "-passin", f"file:{password_file}")
        return {
            "public": openssl("pkey", "-pubout", data=plain).decode(),
            "text": openssl("asn1parse", "-in", key_file).decode(),
        }

    def _wrap(self, file_key, container):
        version, text = container["version"], container["publicKey"]
        if text not in self._public:
            self._public[text] = self._store(text)
        wrapped = rsa("encrypt", version, self._public[text], file_key.key)
        sealed = {"key": b64(wrapped), "iv": b64(file_key.iv), "tag": b64(file_key.tag)}
        return {**sealed, "version": VERSIONS[version][2]}

    def _unwrap(self, sealed):
        version = next(pair for pair, (_, _, file) in VERSIONS.items() if file == sealed["version"])
        key = rsa("decrypt", version, self._private[version], base64.b64decode(sealed["key"], validate=True))
        iv, tag = (base64.b64decode(sealed[name], validate=True) for name in ("iv", "tag"))
        if (len(key), len(iv), len(tag)) != (32, 12, 16) or not any(key):
            raise ValueError("bad file key")
        return FileKey(key, iv, tag)

    # Nodes

    def node_at(self, path):
        """By search, and the first hit is believed."""
        *parents, name = path.strip("/").split("/")
        parent_path = "/" + "".join(f"{parent}/" for parent in parents)
        query = {
            "search_string": name, "depth_level": len(parents) + 1, "filter": f"parentPath:eq:{parent_path}", "offset": 0,
        }  # fmt: skip
        found = self._request("GET", "/nodes/search", query)["items"]
        if not found:
            raise ValueError(f"not found: {path}")
        return found[0]

    def create_room(self, name):
        room = {"name": name, "adminIds": [self._user_id], "parentId": None, "inheritPermissions": False}
        now = local_time(time.time())
        return self._request("POST", "/nodes/rooms", payload={**room, "timestampCreation": now, "timestampModificiation": now})

    def encrypt_room(self, room_id):
        return self._request(
            "PUT", f"/nodes/rooms/{room_id}/encrypt", payload={"isEncrypted": True, "useDataSpaceRescueKey": False}
        )

    def create_folder(self, parent_id, name):
        now = local_time(time.time())
        folder = {"parentId": parent_id, "name": name, "timestampCreation": now, "timestampModificiation": now}
        return self._request("POST", "/nodes/folders", payload=folder)

    def add_member(self, room_id, user_id, rights=("read", "create", "change", "delete")):
        permissions = {name: name in rights for name in sorted(Watcher.PERMISSIONS)}
        self._request("PUT", f"/nodes/rooms/{room_id}/users", payload={"items": [{"id": user_id, "permissions": permissions}]})

    def delete(self, node_ids):
        self._request("DELETE", "/nodes", payload={"nodeIds": node_ids})

    # Upload

    def upload(self, source, target, name=None, via=None, strategy="autorename", part_size=CHUNK, spoil=None):
        """`via` is "s3" or "classic"; by default whatever the server's general settings ask for. `spoil` makes
        mistakes on purpose: "etag", "fileKey". Answers the node, or None after a conflict."""
        parent = self.node_at(target)
        name = name or os.path.basename(source)
        info = os.stat(source)
        direct = self._s3 if via is None else via == "s3"
        channel = self._request(
            "POST", "/nodes/files/uploads",
            payload={
                "parentId": parent["id"], "name": name, "size": info.st_size, "directS3Upload": direct, "classification": 2,
                "timestampCreation": local_time(info.st_ctime), "timestampModification": local_time(info.st_mtime),
            },
        )  # fmt: skip
        for field in ("uploadUrl", "uploadId", "token"):
            if not isinstance(channel[field], str):
                raise ValueError(f"upload channel: {channel}")
        cipher = file_key = None
        if parent["isEncrypted"]:
            file_key = FileKey(secrets.token_bytes(32), secrets.token_bytes(12))
            cipher = Aes("gcm", True, file_key.key, file_key.iv)
        finish = {"resolutionStrategy": strategy, "keepShareLinks": False, "fileName": name}
        send = self._send_s3 if direct else self._send_classic
        with open(source, "rb") as file:
            finish |= send(channel, file, info.st_size, cipher, part_size)
        if cipher is not None:
            cipher.final()
            file_key.tag = cipher.tag()
            if spoil != "fileKey":
                finish["fileKey"] = self._wrap(file_key, self.get_key_pair()["publicKeyContainer"])
        if spoil == "etag":
            finish["parts"][0]["partEtag"] = "0" * 32
        node = (self._finish_s3 if direct else self._finish_classic)(channel, finish)
        if node is not None and cipher is not None:
            self._share(file_key, node["id"])
        return node

    @staticmethod
    def _encrypted(cipher, data):
        if cipher is None:
            return data
        return b"".join(cipher.update(data[at : at + CRYPT_STEP]) for at in range(0, len(data), CRYPT_STEP))

    def _send_s3(self, channel, file, size, cipher, part_size):
        """The URL of the last part is asked for first, then those of all others at once."""
        count = max(1, -(-size // part_size))
        urls = {}

        def ask(length, first, last):
            query = {"size": length, "firstPartNumber": first, "lastPartNumber": last}
            for item in self._request("POST", f"/nodes/files/uploads/{channel['uploadId']}/s3_urls", payload=query)["urls"]:
                urls[item["partNumber"]] = item["url"]

        ask(size - (count - 1) * part_size, count, count)
        if count > 1:
            ask(part_size, 1, count - 1)
        parts = []
        for number in range(1, count + 1):
            reply = self._uploader.send("PUT", urls[number], self._encrypted(cipher, file.read(part_size)))
            if reply.status != 200:
                raise HttpError(reply, f"part {number}")
            if not re.fullmatch(r'"[0-9a-f-]+"', reply.headers["ETag"]):
                raise ValueError(f"ETag: {reply.headers['ETag']}")
            parts.append({"partNumber": number, "partEtag": reply.headers["ETag"].replace('"', "")})
        return {"parts": parts}

    def _finish_s3(self, channel, finish):
        path = f"/nodes/files/uploads/{channel['uploadId']}"
        try:
            if self._request("PUT", f"{path}/s3", payload=finish) is not None:
                raise ValueError("finishing: a body")
        except HttpError as error:
            if error.status == 409:
                return None
            raise
        pause = 0.1
        while True:
            state = self._request("GET", path)
            if state["status"] == "done":
                return state["node"]
            if state["status"] == "error":
                raise ValueError(f"upload failed: {json.dumps(state)}")
            if state["status"] not in ("transfer", "finishing"):
                raise ValueError(f"status: {state}")
            time.sleep(pause)
            pause *= 2

    def _send_classic(self, channel, file, size, cipher, part_size):
        def post(body, headers):
            reply = self._uploader.send("POST", channel["uploadUrl"], body, headers)
            if reply.status != 201:
                raise HttpError(reply, "chunk")
            return reply.json

        def form(data):
            boundary = secrets.token_hex(16)
            head = (
                f"--{boundary}\r\n"
                'Content-Disposition: form-data; name="file"; filename="upload"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n"
            )
            body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
            return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}

        if size <= part_size and cipher is None:
            # One chunked request without Content-Type. A Content-Range from an earlier upload stays on the session.
            pieces = iter(lambda: file.read(65536), b"")
            answer = post(pieces, {})
            if answer["size"] != size:
                raise ValueError(f"chunk: {answer}")
            return {}
        at = 0
        while at < size or at == 0:
            data = self._encrypted(cipher, file.read(part_size))
            if size > part_size:
                start = 0 if cipher is None else at
                self._uploader.headers["Content-Range"] = f"bytes {start}-{start}/{size}"
            answer = post(*form(data))
            if answer != {"size": len(data), "hash": hashlib.md5(data).hexdigest()}:
                raise ValueError(f"chunk: {answer}")
            at += len(data)
            if not data:
                break
        return {}

    def _finish_classic(self, channel, finish):
        try:
            return self._request("PUT", f"/uploads/{channel['token']}", payload=finish)
        except HttpError as error:
            if error.status == 409:
                return None
            raise

    # File keys

    def missing(self, **query):
        answer = self._request("GET", "/nodes/missingFileKeys", {"offset": 0, **query})
        users, files = answer["users"], answer["files"]
        for listed, field in ((users, "userId"), (files, "fileId")):
            wanted = {item[field] for item in answer["items"]}
            if sorted(wanted) != sorted(entry["id"] for entry in listed):
                raise ValueError(f"missing keys: {field} {sorted(wanted)} but {[entry['id'] for entry in listed]}")
        return answer

    def _share(self, file_key, file_id):
        """After an upload, with the plain key at hand."""
        answer = self.missing(file_id=file_id, limit=50)
        entries = [
            {"userId": user["id"], "fileId": file_id, "fileKey": self._wrap(file_key, user["publicKeyContainer"])}
            for user in answer["users"]
        ]
        if entries:
            self._request("POST", "/nodes/files/keys", payload={"items": entries})

    def distribute(self, limit=100, **query):
        """Fulfilled items vanish, so every round starts at offset 0. Answers how many keys each round handed out."""
        rounds = []
        while (answer := self.missing(limit=limit, **query))["items"]:
            public = {user["id"]: user["publicKeyContainer"] for user in answer["users"]}
            plain = {file["id"]: self._unwrap(file["fileKeyContainer"]) for file in answer["files"]}
            entries = [
                {**item, "fileKey": self._wrap(plain[item["fileId"]], public[item["userId"]])} for item in answer["items"]
            ]
            self._request("POST", "/nodes/files/keys", payload={"items": entries})
            rounds.append(len(entries))
        return rounds

    # Download

    def download(self, path, target, chunk=None, fresh_url=False):
        """One streaming GET; or, with `chunk`, ranges, each with its own URL if `fresh_url`."""
        node = self.node_at(path)
        cipher = file_key = None
        if node["isEncrypted"]:
            file_key = self._unwrap(self._request("GET", f"/nodes/files/{node['id']}/user_file_key"))
            cipher = Aes("gcm", False, file_key.key, file_key.iv)

        def url():
            answer = self._request("POST", f"/nodes/files/{node['id']}/downloads")
            if not isinstance(answer["token"], str):
                raise ValueError(f"download: {answer}")
            return answer["downloadUrl"]

        with open(target, "wb") as file:

            def sink(data):
                file.write(data if cipher is None else cipher.update(data))

            where = url()
            if chunk is None:
                reply = self._downloader.send("GET", where, sink=sink)
                if reply.status != 200:
                    raise HttpError(reply, "download")
            else:
                for at in range(0, node["size"], chunk):
                    last = min(at + chunk, node["size"]) - 1
                    reply = self._downloader.send("GET", where, headers={"Range": f"bytes={at}-{last}"}, sink=sink)
                    expected = f"bytes {at}-{last}/{node['size']}"
                    if reply.status != 206 or reply.headers["Content-Range"] != expected:
                        raise HttpError(reply, f"range {expected} but {reply.headers['Content-Range']}")
                    if fresh_url:
                        where = url()
            if cipher is not None:
                file.write(cipher.final(file_key.tag))
            if file.tell() != node["size"]:
                raise ValueError(f"{file.tell()} bytes of {node['size']}")
        return node

    # Shares

    def create_share(self, path, share_password=None, label=None, version="RSA-4096", **options):
        """A link to a node. For an encrypted file `share_password` locks a key pair of the share's own, and stays here."""
        node = self.node_at(path)
        payload = {"nodeId": node["id"], **options}
        if node["isEncrypted"]:
            file_key = self._unwrap(self._request("GET", f"/nodes/files/{node['id']}/user_file_key"))
            own = dict(self._private)
            pair = self.make_key_pair(share_password, version=version, profile="legacy", encoding="utf-8", label=label)
            self._private = own  # that of the share is not ours
            payload |= {"keyPair": pair, "fileKey": self._wrap(file_key, pair["publicKeyContainer"])}
        elif share_password is not None:
            payload["password"] = share_password
        return self._request("POST", "/shares/downloads", payload=payload)

    def create_request(self, path, **options):
        return self._request("POST", "/shares/uploads", payload={"targetId": self.node_at(path)["id"], **options})

    def list_shares(self, kind="downloads", **query):
        return self._request("GET", f"/shares/{kind}", query or None)["items"]

    def _visit(self, method, url, payload=None, headers=None, expected=(200,)):
        """As somebody without an account. Without a payload there is no body at all."""
        body = None if payload is None else json.dumps(payload).encode()
        headers = {**({} if payload is None else {"Content-Type": "application/json"}), **(headers or {})}
        reply = self._visitor().send(method, url, body, headers)
        if reply.status not in expected:
            raise HttpError(reply, f"{method} {urlsplit(url).path}")
        return reply.json

    def _visitor(self):
        if not hasattr(self, "_anonymous"):
            self._anonymous = Session(self._watcher)
        return self._anonymous

    @staticmethod
    def _public_url(link, kind):
        """What the API calls that which a browser sees as BASE/public/download-shares/KEY."""
        parts = urlsplit(link)
        page, key = parts.path.rsplit("/", 2)[-2:]
        if page != f"{kind}-shares" or not re.fullmatch(r"[A-Za-z0-9_-]{22,}", key):
            raise ValueError(f"link: {link}")
        return f"{parts.scheme}://{parts.netloc}/api/v4/public/shares/{kind}s/{key}"

    def open_share(self, link, target, password=None, chunk=None):
        """Fetches what a link leads to, without an account. Answers what the server says of it."""
        url = self._public_url(link, "download")
        info = self._visit("GET", url)
        for field, kind in (
            ("isProtected", bool), ("fileName", str), ("size", int), ("limitReached", bool), ("creatorName", str),
            ("createdAt", str), ("hasDownloadLimit", bool), ("mediaType", str),
        ):  # fmt: skip
            if type(info.get(field)) is not kind:
                raise ValueError(f"share: {field} of {info}")
        cipher = file_key = None
        if info.get("isEncrypted"):
            container, sealed = info["privateKeyContainer"], info["fileKey"]
            pkcs8 = unprotect(container["privateKey"], password.encode())
            if VERSIONS[container["version"]][2] != sealed["version"]:
                raise ValueError("key pair and file key of the share do not belong together")
            own = self._private
            self._private = {container["version"]: self._store(pem("PRIVATE KEY", pkcs8))}
            try:
                file_key = self._unwrap(sealed)
            finally:
                self._private = own
            cipher = Aes("gcm", False, file_key.key, file_key.iv)
            payload = None  # an encryption password is never sent
        else:
            payload = {"password": password} if info["isProtected"] else None
        where = self._visit("POST", url, payload, expected=(201,))["downloadUrl"]
        with open(target, "wb") as file:

            def sink(data):
                file.write(data if cipher is None else cipher.update(data))

            if info["mediaType"] == "application/zip":
                reply = self._visitor().send("GET", where)
                if reply.status != 200:
                    raise HttpError(reply, "archive")
                file.write(reply.body)
            elif chunk is None:
                reply = self._visitor().send("GET", where, sink=sink)
                if reply.status != 200:
                    raise HttpError(reply, "shared download")
            else:
                for at in range(0, info["size"], chunk):
                    last = min(at + chunk, info["size"]) - 1
                    reply = self._visitor().send("GET", where, headers={"Range": f"bytes={at}-{last}"}, sink=sink)
                    if reply.status != 206:
                        raise HttpError(reply, "shared range")
            if cipher is not None:
                file.write(cipher.final(file_key.tag))
        return info

    def send_to_request(self, link, source, name=None, password=None, via="classic", part_size=CHUNK, spoil=None):
        """Sends a file by a file request, without an account. `spoil` makes mistakes on purpose: "missing", "stranger"."""
        url = self._public_url(link, "upload")
        header = {} if password is None else {"X-Sds-Share-Password": b64(password.encode())}
        info = self._visit("GET", url, headers=header)
        name = name or os.path.basename(source)
        size = os.stat(source).st_size
        payload = {"name": name, "size": size, "directS3Upload": via == "s3"}
        if password is not None:
            payload["password"] = password
        channel = self._visit("POST", url, payload, expected=(201,))
        where = channel["uploadUrl"]
        if where != f"{url}/{channel['uploadId']}":
            raise ValueError(f"uploadUrl: {channel}")
        cipher = file_key = None
        if info.get("isEncrypted"):
            file_key = FileKey(secrets.token_bytes(32), secrets.token_bytes(12))
            cipher = Aes("gcm", True, file_key.key, file_key.iv)
        parts = []
        with open(source, "rb") as file:
            for number in range(1, max(1, -(-size // part_size)) + 1):
                data = self._encrypted(cipher, file.read(part_size))
                if via == "s3":
                    wanted = {"size": len(data), "firstPartNumber": number, "lastPartNumber": number}
                    (found,) = self._visit("POST", f"{where}/s3_urls", wanted, expected=(201,))["urls"]
                    reply = self._visitor().send("PUT", found["url"], data)
                    if reply.status != 200:
                        raise HttpError(reply, f"part {number}")
                    parts.append({"partNumber": number, "partEtag": reply.headers["ETag"].replace('"', "")})
                else:
                    at = (number - 1) * part_size
                    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {at}-{at + len(data)}/*"}
                    reply = self._visitor().send("POST", where, data, headers)
                    if reply.status != 201 or reply.json != {"size": len(data), "hash": hashlib.md5(data).hexdigest()}:
                        raise HttpError(reply, f"chunk {number}")
        keys = []
        if cipher is not None:
            cipher.final()
            file_key.tag = cipher.tag()
            keys = [
                {"userId": user["id"], "fileKey": self._wrap(file_key, user["publicKeyContainer"])}
                for user in info["userUserPublicKeyList"]["items"]
            ]
            if spoil == "missing":
                keys.pop()
            if spoil == "stranger":
                keys.append({**keys[0], "userId": 999_999})
        if via == "classic":
            return self._visit("PUT", where, {"items": keys} if keys else None, expected=(201, 202))
        self._visit("PUT", f"{where}/s3", {"parts": parts, **({"userFileKeyList": keys} if keys else {})}, expected=(202,))
        while True:
            state = self._visit("GET", where)
            if state["status"] in ("done", "error"):
                return state
            time.sleep(0.05)

    def close(self):
        shutil.rmtree(self._dir, ignore_errors=True)


def main():
    peer = Peer(sys.argv[1])
    try:
        for line in sys.stdin:
            order = json.loads(line)
            answer = {"id": order["id"]}
            try:
                if order["call"].startswith("_"):
                    raise ValueError("no such call")
                answer["result"] = getattr(peer, order["call"])(**order["args"])
            except HttpError as error:
                answer["error"] = {"message": str(error), "status": error.status, "json": error.json}
            except Exception as error:
                answer["error"] = {"message": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        peer.close()


if __name__ == "__main__":
    main()
