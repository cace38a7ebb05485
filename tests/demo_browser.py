"""The demo's story in a real Chromium, as its first page tells it. Screenshots are left in artefacts/demo/."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("REENTRY_BINARY", ROOT / "target" / "debug" / "reentry"))
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
PICTURES = ROOT / "artefacts" / "demo"
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]


@pytest.fixture(scope="module")
def demo():
    """The running demo: its places by name. It has to stop cleanly at the end."""
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


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1100, "height": 800}, color_scheme="light")
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" and "Content Security" in m.text else None)
    yield page
    context.close()
    assert not faults, faults


def picture(page, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


def sign_in(page, demo, name, password):
    page.goto(demo["bank"])
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Name or e-mail address").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_out(page):
    page.get_by_role("button", name="Sign out").click()


def send_money(page):
    page.get_by_label("Euros").fill("20")
    page.get_by_role("button", name="Send", exact=True).click()


def forget_password(page, demo, name, password):
    page.goto(demo["idp"] + "/forgot")
    page.get_by_label("Name or e-mail address").fill(name)
    page.get_by_role("button", name="Send the link").click()
    page.goto(demo["mailbox"])
    page.get_by_role("link", name="Choose a new password").first.click()
    page.locator(".letter a[href*='/reset']").click()
    page.get_by_label("New password").fill(password)
    page.get_by_role("button", name="Set the new password").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your password was changed")


def letter(page, demo, subject, to):
    """Opens the newest message with this subject, waiting for it to arrive."""
    for _ in range(60):
        page.goto(demo["mailbox"])
        row = page.locator("li", has_text=to).filter(has_text=subject)
        if row.count():
            row.first.get_by_role("link").click()
            return
        time.sleep(0.25)
    raise AssertionError(f"no message {subject!r} to {to}")


def later(page, demo, words):
    page.goto(demo["guide"] + "/#clock")
    page.get_by_role("button", name=words).click()


def test_the_first_page_links_the_four_places(page, demo):
    page.goto(demo["guide"])
    for place in ("bank", "idp", "mailbox"):
        assert page.locator(f'nav a[href="{demo[place]}"]').count() == 1
    assert page.locator(f'nav a[href="{demo["issuer"]}/account"]').count() == 1
    picture(page, "1-guide")


def test_after_a_recovery_money_waits_and_then_moves_by_itself(page, demo):
    sign_in(page, demo, "ana", "ana-secret")
    send_money(page)
    expect(page.get_by_role("status")).to_contain_text("€ 20.00 sent")
    picture(page, "2-before")
    sign_out(page)

    forget_password(page, demo, "ana", "a brand new password")
    page.goto(demo["bank"])
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
    picture(page, "3-restricted")
    send_money(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("You cannot send money just now")
    expect(page.get_by_text("It works again from")).to_be_visible()
    picture(page, "4-refused")

    letter(page, demo, "password was", "ana@example.com")
    expect(page.locator(".letter")).to_contain_text("/cancel/")
    picture(page, "5-notice")

    page.goto(demo["issuer"] + "/account")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    picture(page, "6-owner")

    later(page, demo, "25 hours later")
    sign_in(page, demo, "ana", "a brand new password")
    send_money(page)
    expect(page.get_by_role("status")).to_contain_text("€ 20.00 sent")
    picture(page, "7-whole-again")


def test_a_report_closes_the_account(page, demo):
    elsewhere = page.context.browser.new_context()
    owners = elsewhere.new_page()
    sign_in(owners, demo, "ben", "ben-secret")
    forget_password(page, demo, "ben", "taken over by somebody")
    page.goto(demo["bank"])
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")

    letter(page, demo, "password was", "ben@example.com")
    page.locator(".letter a[href*='/cancel/']").click()
    picture(page, "8-report")
    page.get_by_role("main").get_by_role("button").first.click()
    picture(page, "9-reported")

    # A token that is still out moves no money: the bank asks before it pays.
    owners.goto(demo["bank"])
    expect(owners.get_by_role("heading", level=1)).to_have_text("Your account")
    send_money(owners)
    expect(owners.get_by_role("heading", level=1)).to_have_text("You have been signed out")
    elsewhere.close()

    # Tokens already out end by themselves, and there are no new ones.
    later(page, demo, "1 hour later")
    page.goto(demo["bank"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Good to see you")
    sign_in(page, demo, "ben", "taken over by somebody")
    expect(page.get_by_role("alert")).to_be_visible()
    letter(page, demo, "frozen", "ben@example.com")


@pytest.mark.parametrize("width,scheme", [(320, "light"), (320, "dark"), (1100, "dark")])
def test_pages_fit_small_screens_and_dark_rooms(chromium, demo, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    for name in ("guide", "bank", "idp", "mailbox"):
        page.goto(demo[name])
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} at {width}px"
        picture(page, f"{name}-{width}-{scheme}")
    context.close()


def test_a_second_demo_takes_other_ports(demo):
    other = subprocess.Popen(
        [BINARY, "demo", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    places = json.loads(other.stdout.readline())
    assert not set(places.values()) & set(demo.values())
    other.send_signal(signal.SIGINT)
    assert other.wait(timeout=20) == 0
