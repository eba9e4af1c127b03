//! Tables of objects and what becomes of them.
