//! Words of a closed set, and the nearest one to a mistyped one.

/// Text that is not empty.
///
/// # Errors
/// What is wrong.
pub fn filled(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// One of `choices` by its word.
///
/// # Errors
/// What is wrong, with the words there are.
pub fn choose<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let hint = nearest(text, &words).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(format!("is `{text}`, not one of {}{hint}", words.join(", ")))
}

/// The known word nearest to a mistyped one, if any is near enough.
#[must_use]
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let reach = (word.len() / 3).max(1);
    known
        .iter()
        .map(|k| (distance(word, k), *k))
        .filter(|(d, _)| *d <= reach)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Edits between two words: insertions, deletions, replacements, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last: Option<char> = None;
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut cheapest = (at(&row, j) + usize::from(x != *y))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            if let Some(earlier) = j.checked_sub(1)
                && last == Some(*y)
                && b.get(earlier) == Some(&x)
            {
                cheapest = cheapest.min(at(&before, earlier) + 1);
            }
            next.push(cheapest);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(x);
    }
    row.last().copied().unwrap_or(0)
}
