//! `telemetry` and `admin`: what operators see, and what they may read with a static key.

use super::client::SecretHash;
use super::client::auth::long_secret;
use super::reader::Section;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The least severe lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`.
    Error,
    /// `warn`.
    Warn,
    /// `info`.
    Info,
    /// `debug`.
    Debug,
    /// `trace`.
    Trace,
}

impl LogLevel {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The section `telemetry`.
#[derive(Clone, Copy, Debug)]
pub struct TelemetrySettings {
    /// Form of log lines.
    pub format: LogFormat,
    /// Least severity.
    pub level: LogLevel,
}

impl TelemetrySettings {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let format = s.choice(
            "format",
            LogFormat::Json,
            &[("json", LogFormat::Json), ("text", LogFormat::Text)],
        );
        let level = s.choice(
            "level",
            LogLevel::Info,
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ],
        );
        Some(Self {
            format: format?,
            level: level?,
        })
    }
}

/// The section `admin`.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    /// A static key that may read the admin API, and never approves anything.
    pub read_key: Option<SecretHash>,
}

impl Admin {
    pub(super) fn read(s: &Section<'_>) -> Option<Self> {
        let read_key = match s.secret("read_key")? {
            None => None,
            Some(key) => Some(long_secret(s, "read_key", &key)?),
        };
        Some(Self { read_key })
    }
}
