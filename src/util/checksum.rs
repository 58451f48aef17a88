//! CRC-32C (Castagnoli), the checksum of the log.
//!
//! Short texts are summed with a table: asking the processor for its instruction takes longer than that where a hypervisor
//! answers (`cpuid` leaves the virtual machine), and every hook call would ask anew.

/// From this many bytes on the processor's instruction is worth looking for.
const LONG: usize = 64 << 10;

/// The checksum of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    append(0, bytes)
}

/// The checksum of a text whose beginning has the checksum `crc`, and which goes on with `bytes`.
pub(crate) fn append(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.len() >= LONG {
        return ::crc32c::crc32c_append(crc, bytes);
    }
    !bytes.iter().fold(!crc, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

/// The checksum of two texts put together: `first`, then one of `len` bytes that has the checksum `second`.
pub(crate) fn combine(first: u32, second: u32, len: usize) -> u32 {
    ::crc32c::crc32c_combine(first, second, len)
}

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    /// The polynomial, lowest bit first.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_have_the_checksum_that_the_processor_makes() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the standard");
        let text: Vec<u8> = (0..LONG + 100).map(|n| (n * 31 % 251) as u8).collect();
        for len in [0, 1, 8, 1000, LONG - 1, LONG, LONG + 100] {
            assert_eq!(crc32c(&text[..len]), ::crc32c::crc32c(&text[..len]), "{len} bytes");
            let (head, tail) = text[..len].split_at(len / 3);
            assert_eq!(append(crc32c(head), tail), crc32c(&text[..len]), "{len} bytes in two parts");
            assert_eq!(combine(crc32c(head), crc32c(tail), tail.len()), crc32c(&text[..len]), "{len} bytes combined");
        }
    }
}
