//! Time and randomness, as arguments of everything that needs them.

use crate::domain::time::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync {
    /// Our own clock.
    fn now(&self) -> Timestamp;
}

/// Unpredictable bytes from the operating system or a CSPRNG.
pub trait Entropy: Send + Sync {
    /// Fills `buffer`. Implementations abort the process rather than return weak bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// `N` unpredictable bytes.
    fn bytes<const N: usize>(&self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut buffer = [0; N];
        self.fill(&mut buffer);
        buffer
    }
}
