//! How pages look: sizes, contrast, structure, and the policy that forbids everything inline.

use reentry::http::pages::{Notice, Pages, Tone, html};
use reentry::http::views::{ConfirmLogout, Message, Views};

use crate::world::World;

const STYLE: &str = include_str!("../../src/http/pages/assets/style.css");

/// A custom property of the light (first) or dark (second) scheme.
fn property(name: &str, dark: bool) -> String {
    let name = format!("{name}: #");
    let mut found = STYLE.match_indices(&name).map(|(at, found)| {
        let from = at + found.len() - 1;
        STYLE[from..from + 7].to_owned()
    });
    let (light, other) = (
        found.next().expect("a light colour"),
        found.next().expect("a dark colour"),
    );
    if dark { other } else { light }
}

fn luminance(colour: &str) -> f64 {
    let part = |from: usize| {
        let c = f64::from(u8::from_str_radix(&colour[from..from + 2], 16).unwrap()) / 255.0;
        if c <= 0.040_45 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
}

fn contrast(a: &str, b: &str) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_can_be_read_in_both_schemes() {
    for dark in [false, true] {
        for surface in ["--surface", "--raised"] {
            for text in ["--text", "--muted", "--accent", "--danger", "--ok", "--warn"] {
                let (on, over) = (property(surface, dark), property(text, dark));
                let found = contrast(&on, &over);
                assert!(found >= 4.5, "{text} {over} on {surface} {on}: {found:.2}");
            }
        }
        let found = contrast(&property("--accent", dark), &property("--on-accent", dark));
        assert!(found >= 4.5, "--on-accent on --accent: {found:.2}");
    }
}

#[test]
fn the_style_sheet_is_small_and_asks_nobody_else() {
    assert!(STYLE.len() <= 12 * 1024, "{} octets", STYLE.len());
    for remote in ["url(", "@import", "http"] {
        assert!(!STYLE.contains(remote), "{remote}");
    }
}

// The surfaces that a configured accent is held against are the ones of the style sheet.
#[test]
fn the_configuration_checks_accents_against_these_surfaces() {
    use reentry::config::branding::{SURFACE_DARK, SURFACE_LIGHT};
    assert_eq!(SURFACE_LIGHT.to_string(), property("--surface", false));
    assert_eq!(SURFACE_DARK.to_string(), property("--surface", true));
}

#[test]
fn every_page_has_one_heading_a_language_landmarks_and_nothing_inline() {
    let pages = Pages::new(
        reentry::http::pages::Brand::default(),
        reentry::domain::wording::Wording::default(),
        "/base",
    )
    .unwrap();
    let all = [
        pages.notice(&Notice {
            title: "<b>A fact</b>",
            lines: vec!["One & two".to_owned()],
            tone: Tone::Failed,
            reference: Some("rc_1"),
            next: Some(("Go on", "https://bank.example/?a=1&b=\"2\"".to_owned())),
        }),
        pages.message(&Message {
            title: "A fact".to_owned(),
            text: "Words".to_owned(),
            reference: None,
            next: None,
        }),
        pages.confirm_logout(&ConfirmLogout {
            action: "/logout".to_owned(),
            fields: vec![("confirm".to_owned(), "\"><script>".to_owned())],
        }),
    ];
    for page in &all {
        assert_eq!(page.matches("<h1").count(), 1);
        for part in [
            "<!doctype html>",
            "<html lang=\"en\"",
            "<header>",
            "<main ",
            "<footer>",
            "name=\"viewport\"",
            "href=\"/base/assets/style.css\"",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        for inline in [" style=", "<style", "<script>", "<b>A fact", "b=\"2\""] {
            assert!(!page.contains(inline), "{inline}\n{page}");
        }
    }
    let response = html(axum::http::StatusCode::OK, String::new());
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains('*'));
}

#[tokio::test]
async fn assets_are_served_with_their_kinds() {
    let world = World::start().await;
    for (path, kind) in [
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/brand.css", "text/css; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
    ] {
        let response = world
            .web
            .get(format!("{}{path}", world.issuer))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    let logo = world
        .web
        .get(format!("{}/assets/logo", world.issuer))
        .send()
        .await
        .unwrap();
    assert_eq!(logo.status(), 404, "a deployment without one");
}
