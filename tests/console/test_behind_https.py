"""A real `saga console` behind a real HTTPS proxy."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from tests.cli.conftest import command
from tests.console.background import Background
from toolkit.cli.app import app as cli

TOKEN = "a-token-of-the-services"


@pytest.fixture(scope="module")
def console() -> Iterator[str]:
    """`saga console --behind-https` on this machine; its own address, without the proxy."""
    line = command("console", "--port", "0", "--behind-https", "--service", "payment=http://127.0.0.1:1")
    environment = os.environ | {"SAGA_API_TOKEN": TOKEN, "SAGA_HTTP_NAMES": "console.example"}
    process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[0].rstrip("/")
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def https(console: str, background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an HTTPS proxy that forwards everything."""
    folder = tmp_path_factory.mktemp("tls")
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1")
    subprocess.run([*made, "-keyout", folder / "key", "-out", folder / "cert"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert", folder / "key")
    port = int(console.rpartition(":")[2])

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)

    server = background.run(asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context))
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while read := await reader.read(65_536):
        writer.write(read)
        await writer.drain()
    writer.close()


def test_signing_in_sets_a_secure_host_cookie(https: str, browser: Browser):
    with browser.new_context(base_url=https, ignore_https_errors=True) as context:
        page = context.new_page()
        page.goto("/sagas")
        page.get_by_label("Your name").fill("Grace")
        page.locator("input[name=secret]").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sagas")
        (cookie,) = context.cookies()

    assert cookie["name"] == f"__Host-saga_console_{https.rpartition(':')[2]}"
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")


def test_every_response_keeps_the_browser_on_https(console: str):
    for path in ("/sign-in", "/static/console.css", "/nothing", "/healthz"):
        answer = httpx.get(console + path, headers={"Host": "console.example"})

        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-saga_console_443=")
            assert "; Secure" in cookie


def test_plain_http_is_redirected_to_https(console: str):
    forwarded = {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "console.example"}

    asked = httpx.get(f"{console}/sagas?state=Failed", headers=forwarded)
    posted = httpx.post(f"{console}/sign-in", data={"secret": TOKEN}, headers=forwarded)

    assert (asked.status_code, asked.headers["location"]) == (308, "https://console.example/sagas?state=Failed")
    assert (posted.status_code, "set-cookie" in posted.headers) == (403, False)


@pytest.mark.parametrize("proto", ["https", "http"])
@pytest.mark.parametrize("header", ["Host", "X-Forwarded-Host"])
def test_a_foreign_host_name_is_refused_everywhere(console: str, header: str, proto: str):
    for path in ("/sign-in", "/sagas", "/static/console.css", "/healthz"):
        answer = httpx.get(console + path, headers={header: "shop.example", "X-Forwarded-Proto": proto})

        assert (answer.status_code, "location" in answer.headers) == (421, False)
        assert "SAGA_HTTP_NAMES" in answer.text


@pytest.mark.parametrize("origin", ["https://console.example", "https://evil.example"])
def test_a_forms_origin_is_the_forwarded_host(console: str, origin: str):
    forwarded = {"X-Forwarded-Host": "console.example"}
    with httpx.Client(base_url=console, headers=forwarded) as client:
        page = client.get("/sign-in")
        (token,) = re.findall(r'name="token" value="([^"]+)"', page.text)
        cookie = page.headers["set-cookie"].partition(";")[0]
        fields = {"token": token, "name": "Grace", "secret": TOKEN}
        answer = client.post("/sign-in", data=fields, headers={"Origin": origin, "Cookie": cookie})

    assert answer.status_code == (303 if "console" in origin else 403)


def test_loopback_behind_a_proxy_requires_signing_in(console: str):
    line = ["console", "--behind-https", "--port", "0", "--service", "payment=http://127.0.0.1:1"]
    without = CliRunner().invoke(cli, line, env={"SAGA_API_TOKEN": ""})

    assert httpx.get(f"{console}/sagas").status_code == 303
    assert without.exit_code == 2
    assert "--behind-https is reached from other machines, and signing in needs SAGA_API_TOKEN" in without.stderr
