//! Reading and writing little-endian integers at fixed places of a slice. The caller has checked the length.

/// Defines one getter and one setter for an integer type.
macro_rules! integer {
    ($get:ident, $put:ident, $type:ty) => {
        /// The integer at `at`.
        #[inline]
        pub fn $get(bytes: &[u8], at: usize) -> $type {
            const WIDTH: usize = size_of::<$type>();
            <$type>::from_le_bytes(
                bytes[at..at + WIDTH].try_into().expect("the slice has the integer's width"),
            )
        }

        /// Writes `value` at `at`.
        #[inline]
        pub fn $put(bytes: &mut [u8], at: usize, value: $type) {
            const WIDTH: usize = size_of::<$type>();
            bytes[at..at + WIDTH].copy_from_slice(&value.to_le_bytes());
        }
    };
}

integer!(get_u16, put_u16, u16);
integer!(get_u32, put_u32, u32);
integer!(get_i32, put_i32, i32);
integer!(get_u64, put_u64, u64);
