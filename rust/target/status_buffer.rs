// SPDX-License-Identifier: GPL-2.0

//! Text for `dmsetup status` and `dmsetup table`.

use core::fmt::Write;

use kernel::prelude::*;

/// Prints into a buffer of device-mapper. Text that does not fit is cut off; device-mapper then
/// calls again with a larger buffer.
///
/// # Examples
///
/// A target that prints a counter in its status, and its device in its table line.
///
/// ```ignore
/// fn status(&self, kind: StatusType, out: &mut StatusBuffer<'_>) -> Result {
///     match kind {
///         StatusType::Info => write!(out, "reads={}", self.reads.sum()),
///         StatusType::Table => write!(out, "{}", self.disk.name()),
///         StatusType::Ima => Ok(()),
///     }
///     .map_err(|_| EIO)
/// }
/// ```
pub struct StatusBuffer<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> StatusBuffer<'a> {
    /// Creates a printer that fills `buffer` and keeps the text terminated by a zero byte.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        if let Some(first) = buffer.first_mut() {
            *first = 0;
        }
        Self { buffer, used: 0 }
    }
}

impl Write for StatusBuffer<'_> {
    // RANGE: The used and the added bytes fit into the buffer, followed by a 0.
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.buffer.len().saturating_sub(self.used + 1);
        let len = text.len().min(room);
        if let Some(to) = self.buffer.get_mut(self.used..=self.used + len) {
            to[..len].copy_from_slice(&text.as_bytes()[..len]);
            to[len] = 0;
            self.used += len;
        }
        Ok(())
    }
}

/// Returns the text that `print` prints into `buffer`, for tests. Fails with `EINVAL` if `print`
/// fails.
pub fn printed<'b>(
    buffer: &'b mut [u8],
    print: impl FnOnce(&mut dyn Write) -> core::fmt::Result,
) -> Result<&'b [u8]> {
    print(&mut StatusBuffer::new(buffer)).map_err(|_| EINVAL)?;
    let text = CStr::from_bytes_until_nul(buffer).map_err(|_| EINVAL)?;
    Ok(text.to_bytes())
}
