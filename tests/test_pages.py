"""The owner's pages in a real Chromium: they fit, they work by keyboard and without script, nothing is blocked.

Screenshots are left in artefacts/pages/.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("REENTRY_BIN", ROOT / "target" / "debug" / "reentry"))
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PICTURES = ROOT / "artefacts" / "pages"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
LOOKS = [(320, "light"), (320, "dark"), (1280, "light"), (1280, "dark")]


@pytest.fixture(scope="module")
def demo():
    process = subprocess.Popen(
        [BINARY, "demo", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    places = json.loads(process.stdout.readline())
    yield places
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0, process.stderr.read()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def visitor(chromium, **settings):
    """A fresh browser profile; what its policy blocks and its script breaks is kept."""
    context = chromium.new_context(**settings)
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda m: page.faults.append(m.text) if "Content Security" in m.text else None)
    return page


def take_over(page, demo, name):
    """Somebody recovers the account: a new password by way of the mailbox."""
    page.goto(demo["idp"] + "/forgot")
    page.get_by_label("Name or e-mail address").fill(name)
    page.get_by_role("button", name="Send the link").click()
    page.goto(demo["mailbox"])
    page.get_by_role("link", name="Choose a new password").first.click()
    page.locator(".letter a[href*='/reset']").click()
    page.get_by_label("New password").fill("a brand new password")
    page.get_by_role("button", name="Set the new password").click()


def report_link(page, demo, name):
    for _ in range(60):
        page.goto(demo["mailbox"])
        row = page.locator("li", has_text=f"{name}@example.com").filter(has_text="password was")
        if row.count():
            row.first.get_by_role("link").click()
            return page.locator(".letter a[href*='/cancel/']").get_attribute("href")
        time.sleep(0.25)
    raise AssertionError("no message")


def account(page, demo, name, password):
    page.goto(demo["issuer"] + "/account")
    if page.get_by_label("Password").count():
        page.get_by_label("Name or e-mail address").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/account"))


def looks(chromium, page, name):
    """The page in every look, with the cookies of `page`: it fits, targets are large enough, nothing is blocked."""
    kept = page.context.storage_state()
    for width, scheme in LOOKS:
        view = visitor(
            chromium, viewport={"width": width, "height": 800}, color_scheme=scheme, storage_state=kept
        )
        view.goto(page.url)
        assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} at {width}px"
        for button in view.locator("main button, main .button").all():
            box = button.bounding_box()
            assert box["height"] >= 44 and box["width"] >= 44, f"{name}: {button.inner_text()} {box}"
        assert view.locator("h1").count() == 1
        PICTURES.mkdir(parents=True, exist_ok=True)
        view.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)
        assert not view.faults, view.faults
        view.context.close()


def test_the_owners_page_and_the_report(chromium, demo):
    page = visitor(chromium, viewport={"width": 1280, "height": 800}, timezone_id="Asia/Tokyo")
    account(page, demo, "ana", "ana-secret")
    expect(page.get_by_text("Nothing is limited")).to_be_visible()
    looks(chromium, page, "account-whole")

    attacker = visitor(chromium)
    take_over(attacker, demo, "ana")
    link = report_link(attacker, demo, "ana")
    account(attacker, demo, "ana", "a brand new password")
    expect(attacker.get_by_role("heading", level=1)).to_contain_text("limited until")
    looks(chromium, attacker, "account-limited")

    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your password was reset")
    # Said in the reader's zone by the script; the page itself says it in its own.
    expect(page.locator("dd time")).to_contain_text(re.compile("GMT\\+9|JST"))
    looks(chromium, page, "report")
    # By keyboard alone: the first stop leads to the content, the last one is the button.
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("The account is frozen")
    page.reload()
    page.goto(link)
    expect(page.get_by_text("You told us so on")).to_be_visible()
    expect(page.get_by_text("It does not end by itself")).to_be_visible()
    looks(chromium, page, "report-frozen")
    assert not page.faults and not attacker.faults, (page.faults, attacker.faults)


def test_a_broken_link_says_what_to_do(chromium, demo):
    page = visitor(chromium)
    page.goto(demo["issuer"] + "/cancel/AAAA")
    expect(page.get_by_role("heading", level=1)).to_have_text("This link is not complete")
    looks(chromium, page, "link-broken")


def test_it_all_works_without_script_and_sessions_end_by_a_form(chromium, demo):
    page = visitor(chromium, java_script_enabled=False)
    account(page, demo, "ben", "ben-secret")
    other = visitor(chromium)
    account(other, demo, "ben", "ben-secret")
    page.reload()
    rows = page.locator("h2:has-text('Where you are signed in') + ul li")
    assert rows.count() == 2
    rows.filter(has_not_text="(this one)").get_by_role("button").click()
    expect(page.get_by_role("status")).to_contain_text("The session has ended")
    assert rows.count() == 1
    other.reload()
    expect(other.get_by_label("Password")).to_be_visible()
    rows.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")


def test_signing_out_is_asked_and_leads_on(chromium, demo):
    page = visitor(chromium)
    account(page, demo, "ben", "ben-secret")
    page.goto(demo["issuer"] + "/logout")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign out?")
    looks(chromium, page, "sign-out")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")
    assert not page.faults, page.faults
