//! Every safety property has a test that can fail: for each, a realistic fault is planted in a scratch copy of the
//! domain and the ports, the copy is compiled, and the property's own test has to fail in it; without the fault it has
//! to pass. The faults are unified diffs in `tests/faults/`.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// Each property with the prefix of its tests.
const FAULTS: [(&str, &str); 10] = [
    ("P1", "p1_"),
    ("P2", "p2_"),
    ("P5", "p5_"),
    ("P5-older", "p5_no_mixture"),
    ("P6", "p6_"),
    ("P7", "p7_"),
    ("P8", "p8_"),
    ("P9", "p9_"),
    ("P10", "p10_"),
    ("P11", "p11_"),
    ("P17", "p17_"),
    ("P15", "p15_"),
    ("P16", "p16_"),
    ("Lapse", "lapse_"),
    ("P14", "p14_"),
];
/// What the copy is made of, besides the property tests.
const COPIED: [&str; 4] = ["src/domain.rs", "src/domain", "src/ports.rs", "src/ports"];
/// What domain, ports and their tests need of our dependencies, with our versions.
const NEEDED: [&str; 8] = [
    "async-trait",
    "cel",
    "jiff",
    "proptest",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
];

/// A crate of its own below the target folder, kept between runs so that dependencies compile once.
struct Scratch {
    root: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted");
        let scratch = Self { root };
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        for part in COPIED.iter().chain(&["tests/properties.rs", "tests/properties"]) {
            scratch.copy(&home.join(part), &scratch.root.join(part));
        }
        scratch.write(
            Path::new("src/lib.rs"),
            "//! A copy.\npub mod domain;\npub mod ports;\n",
        );
        scratch.write(Path::new("Cargo.toml"), &manifest());
        // Our lock file, so that the same versions are compiled; cargo drops from it what the copy does not need.
        fs::copy(home.join("Cargo.lock"), scratch.root.join("Cargo.lock")).unwrap();
        scratch
    }

    fn copy(&self, from: &Path, to: &Path) {
        if !from.is_dir() {
            let text = fs::read_to_string(from).unwrap();
            return self.write(to.strip_prefix(&self.root).unwrap(), &text);
        }
        let names = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into()).collect()
        };
        let here = names(from);
        for gone in names(to).iter().filter(|name| !here.contains(name)) {
            let gone = to.join(gone);
            let _ = fs::remove_file(&gone).or_else(|_| fs::remove_dir_all(&gone));
        }
        for name in here {
            self.copy(&from.join(&name), &to.join(&name));
        }
    }

    /// Writes only what differs, so that nothing is compiled for nothing.
    fn write(&self, path: &Path, text: &str) {
        let path = self.root.join(path);
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs cargo on the property tests of the copy.
    fn cargo(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO"))
            .args(["test", "--offline", "--test", "properties", "--target-dir"])
            .arg(self.root.join("target"))
            .args(arguments)
            .current_dir(&self.root)
            // A caught fault needs no smallest example.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("RUST_BACKTRACE", "0")
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap()
    }

    /// Compiles the copy; a fault that does not compile is no fault.
    fn compiles(&self, what: &str) {
        let output = self.cargo(&["--no-run"]);
        assert!(
            output.status.success(),
            "{what} does not compile:\n{}",
            text(&output)
        );
    }
}

/// Our manifest, cut down to what the copy needs.
fn manifest() -> String {
    let ours = include_str!("../Cargo.toml");
    let needed = |line: &&str| {
        line.split_once(" = ")
            .is_some_and(|(name, _)| NEEDED.contains(&name))
    };
    let dependencies: Vec<&str> = ours.lines().filter(needed).collect();
    assert_eq!(dependencies.len(), NEEDED.len(), "{dependencies:?}");
    let head = "[package]\nname = \"reentry\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n";
    let foot = "\n\n[profile.dev]\ndebug = false\n";
    format!("{head}[dependencies]\n{}{foot}", dependencies.join("\n"))
}

/// One changed place: lines of before, lines of after.
struct Hunk {
    old: String,
    new: String,
}

/// The file a unified diff is about, and its changed places.
fn patch(diff: &str) -> (String, Vec<Hunk>) {
    let mut file = String::new();
    let mut hunks: Vec<Hunk> = Vec::new();
    for line in diff.lines() {
        if let Some(path) = line.strip_prefix("+++ b/") {
            file.push_str(path);
        } else if line.starts_with("@@ ") {
            hunks.push(Hunk {
                old: String::new(),
                new: String::new(),
            });
        } else if let Some(hunk) = hunks.last_mut() {
            let (sign, rest) = line.split_at(line.len().min(1));
            for (text, other) in [(&mut hunk.old, "+"), (&mut hunk.new, "-")] {
                if sign != other {
                    text.push_str(rest);
                    text.push('\n');
                }
            }
        }
    }
    (file, hunks)
}

/// Plants a fault: every place has to be there, exactly once.
fn planted(name: &str, original: &str, hunks: &[Hunk]) -> String {
    assert!(!hunks.is_empty(), "{name} changes nothing");
    hunks.iter().fold(original.to_owned(), |text, hunk| {
        assert_eq!(
            text.matches(&hunk.old).count(),
            1,
            "{name} does not apply:\n{}",
            hunk.old
        );
        assert_ne!(hunk.old, hunk.new, "{name} changes nothing");
        text.replacen(&hunk.old, &hunk.new, 1)
    })
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The tests whose names begin with `prefix` that failed.
fn failed(output: &str, prefix: &str) -> Vec<String> {
    let names = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.contains(' ') && line.contains(&format!("::{prefix}")));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_planted_fault_is_caught_by_its_property() {
    let scratch = Scratch::new();
    scratch.compiles("the unchanged copy");
    let prefixes = FAULTS.map(|(_, prefix)| prefix);
    let sound = scratch.cargo(&[&["--"], &prefixes[..]].concat());
    let passed = text(&sound);
    assert!(
        sound.status.success(),
        "something fails without a fault:\n{passed}"
    );
    for (name, prefix) in FAULTS {
        let test = |line: &str| line.contains(&format!("::{prefix}")) && line.ends_with("... ok");
        assert!(passed.lines().any(test), "{name} has no test:\n{passed}");
    }
    for (name, prefix) in FAULTS {
        let began = Instant::now();
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let diff = fs::read_to_string(home.join(format!("tests/faults/{name}.patch"))).unwrap();
        let (file, hunks) = patch(&diff);
        let original = fs::read_to_string(home.join(&file)).unwrap_or_else(|e| panic!("{name}: {file}: {e}"));
        scratch.write(Path::new(&file), &planted(name, &original, &hunks));
        scratch.compiles(name);
        let output = text(&scratch.cargo(&["--", prefix]));
        scratch.write(Path::new(&file), &original);
        let caught = failed(&output, prefix);
        let about = diff.lines().next().unwrap_or_default();
        println!(
            "{name}: {about} Caught in {:.1?} by {}",
            began.elapsed(),
            caught.join(", ")
        );
        assert!(
            output.contains("test result: FAILED") && !caught.is_empty(),
            "{name} is not caught:\n{output}"
        );
    }
}

#[test]
fn a_patch_that_does_not_fit_is_no_fault() {
    let diff = "Words.\n\n--- a/src/x.rs\n+++ b/src/x.rs\n@@ -1,3 +1,3 @@ fn f\n a\n-b\n+c\n d\n";
    let (file, hunks) = patch(diff);
    assert_eq!(file, "src/x.rs");
    assert_eq!(planted("x", "a\nb\nd\n", &hunks), "a\nc\nd\n");
    let refused = |text: &str| std::panic::catch_unwind(|| planted("x", text, &hunks)).is_err();
    assert!(refused("a\nB\nd\n") && refused("a\nb\nd\na\nb\nd\n"));
}
