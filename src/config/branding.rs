//! `branding`: the deployment's name, logo and colours on pages and mails.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fault::Fault;
use super::policy::class;
use super::reader::Section;
use super::words::filled;
use crate::domain::ceiling::Class;

/// Background of pages in the light scheme; an accent is read on it and it is read on an accent.
pub const SURFACE_LIGHT: Colour = Colour {
    red: 0xff,
    green: 0xff,
    blue: 0xff,
};
/// Background of pages in the dark scheme.
pub const SURFACE_DARK: Colour = Colour {
    red: 0x16,
    green: 0x1a,
    blue: 0x20,
};
/// Least contrast of text (WCAG 2.2, 1.4.3), in hundredths.
const LEAST_CONTRAST: f64 = 4.5;
/// Largest logo in octets.
const LARGEST_LOGO: u64 = 64 * 1024;

/// An sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// Red.
    pub red: u8,
    /// Green.
    pub green: u8,
    /// Blue.
    pub blue: u8,
}

impl std::fmt::Display for Colour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl Colour {
    /// Reads `#rrggbb`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("is `{text}`, not a colour; write it as \"#0b57d0\", in quotes");
        let digits = text
            .strip_prefix('#')
            .filter(|d| d.len() == 6 && d.is_ascii())
            .ok_or_else(refused)?;
        let part = |from: usize| {
            digits
                .get(from..from + 2)
                .and_then(|d| u8::from_str_radix(d, 16).ok())
                .ok_or_else(refused)
        };
        Ok(Self {
            red: part(0)?,
            green: part(2)?,
            blue: part(4)?,
        })
    }

    /// Relative luminance (WCAG 2.2), 0 to 1.
    fn luminance(self) -> f64 {
        let part = |octet: u8| {
            let c = f64::from(octet) / 255.0;
            if c <= 0.040_45 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(self.red) + 0.7152 * part(self.green) + 0.0722 * part(self.blue)
    }

    /// Contrast with another colour (WCAG 2.2), 1 to 21.
    #[must_use]
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }
}

/// A deployment's accent, one for each scheme: no single colour can be read on both backgrounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accent {
    /// On the light background.
    pub light: Colour,
    /// On the dark background.
    pub dark: Colour,
}

/// The section `branding`.
#[derive(Clone, Debug)]
pub struct Branding {
    /// What the deployment calls itself.
    pub name: String,
    /// An SVG or PNG file.
    pub logo: Option<PathBuf>,
    /// Accent instead of the default one.
    pub accent: Option<Accent>,
    /// Whom an owner turns to: an address or a telephone number, as it is to be shown.
    pub support: Option<String>,
    /// Zone in which times are said: an IANA name.
    pub time_zone: jiff::tz::TimeZone,
    /// What action classes are called here; each completes "you can ...".
    pub words: BTreeMap<Class, String>,
}

impl Branding {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let name = s.or("name", "Your account".to_owned(), filled);
        let logo = s.file("logo");
        let light = accent(s, "accent_light", SURFACE_LIGHT);
        let dark = accent(s, "accent_dark", SURFACE_DARK);
        let support = s.optional("support", filled);
        let time_zone = s.or("time_zone", jiff::tz::TimeZone::UTC, |text| {
            jiff::tz::TimeZone::get(text)
                .map_err(|_| format!("is `{text}`, not a time zone; write for example Europe/Lisbon"))
        });
        let words = words(&s.section("words"));
        if let Some(Some(path)) = &logo {
            check_logo(s, path);
        }
        let accent = match (light?, dark?) {
            (None, None) => None,
            (Some(light), Some(dark)) => Some(Accent { light, dark }),
            (Some(_), None) => {
                s.fault(
                    "accent_dark",
                    "is missing beside `accent_light`",
                    "give a colour for each scheme",
                );
                return None;
            }
            (None, Some(_)) => {
                s.fault(
                    "accent_light",
                    "is missing beside `accent_dark`",
                    "give a colour for each scheme",
                );
                return None;
            }
        };
        Some(Self {
            name: name?,
            logo: logo?,
            accent,
            support: support?,
            time_zone: time_zone?,
            words: words?,
        })
    }
}

#[expect(clippy::option_option, reason = "not there and not readable are two things")]
fn accent(s: &Section<'_>, key: &str, surface: Colour) -> Option<Option<Colour>> {
    s.optional(key, |text| {
        let colour = Colour::parse(text)?;
        let contrast = colour.contrast(surface);
        if contrast < LEAST_CONTRAST {
            return Err(format!(
                "is {colour}, whose contrast on {surface} is {contrast:.1}:1; it must be at least {LEAST_CONTRAST}:1"
            ));
        }
        Ok(colour)
    })
}

fn words(s: &Section<'_>) -> Option<BTreeMap<Class, String>> {
    let mut words = BTreeMap::new();
    let mut whole = true;
    for (name, place, _) in s.entries() {
        match (class(name), s.required(name, "send money", filled)) {
            (Ok(class), Some(text)) => drop(words.insert(class, text)),
            (Err(problem), _) => {
                s.findings()
                    .fault(Fault::new(&s.path(name), place.clone(), problem));
                whole = false;
            }
            _ => whole = false,
        }
    }
    whole.then_some(words)
}

fn check_logo(s: &Section<'_>, path: &std::path::Path) {
    let known = path.extension().is_some_and(|e| e == "svg" || e == "png");
    if !known {
        s.fault(
            "logo",
            format!("is {}, neither .svg nor .png", path.display()),
            "convert it",
        );
    }
    match std::fs::metadata(path) {
        Ok(found) if found.len() > LARGEST_LOGO => {
            s.fault(
                "logo",
                format!("is {} octets long", found.len()),
                "make it at most 64 KiB",
            );
        }
        Ok(_) => {}
        Err(error) => {
            s.fault(
                "logo",
                format!("is {}, which cannot be read ({error})", path.display()),
                "name a file that is there",
            );
        }
    }
}
