//! A packet as bytes behind an Ethernet header: what the classifiers' buffers and XDP's frames have
//! in common.
//!
//! Bytes are moved by helpers at any offset, so that no header need be in the buffer's linear part
//! and no variable offset need be proved to the verifier.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_xdp_get_buff_len,
        bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use podium_proxy_ebpf::checksum;

/// Where the network header begins.
pub const L3: u32 = 14;

/// `ETH_P_IP` and `ETH_P_IPV6`.
pub const ETHERTYPE_V4: u16 = 0x0800;
pub const ETHERTYPE_V6: u16 = 0x86dd;

/// Flags of `bpf_l4_csum_replace`, from `linux/bpf.h`.
const PSEUDO_HEADER: u64 = 1 << 4;
const ZERO_MEANS_NONE: u64 = 1 << 5;
const IS_V6: u64 = 1 << 7;

/// What a transport checksum covers besides its own segment, and how none looks.
#[derive(Clone, Copy)]
pub struct ChecksumKind {
    /// The addresses are those of IPv6.
    pub v6: bool,
    /// UDP's, where zero means that there is none.
    pub udp: bool,
}

/// A packet at a hook.
pub trait Frame {
    /// The hook's context, for helpers.
    fn context(&self) -> *mut c_void;

    /// The device the packet came in through, at egress the one it leaves by.
    fn ifindex(&self) -> u32;

    /// The type in the Ethernet header; `None` for a packet of a VLAN, which has a device of its own.
    fn ethertype(&self) -> Option<u16>;

    /// Bytes from the Ethernet header on.
    fn len(&self) -> u32;

    /// Whether it was joined from several packets.
    fn is_joined(&self) -> bool;

    /// Copies bytes out; `false`, if there are not that many.
    ///
    /// # Safety
    /// `to` must have room for `len` bytes.
    unsafe fn copy_out(&self, offset: u32, to: *mut c_void, len: u32) -> bool;

    /// Copies bytes in, with no look at checksums.
    ///
    /// # Safety
    /// `from` must have `len` bytes.
    unsafe fn copy_in(&self, offset: u32, from: *const c_void, len: u32) -> bool;

    /// Lets a TCP or UDP checksum follow a change of the addresses and one of the bytes it covers.
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool;

    /// Whether a transport checksum is left for the device to complete.
    fn is_left_to_device(&self, offset: u32) -> bool;

    /// Bytes at an offset.
    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: room for exactly these bytes.
        let done =
            unsafe { self.copy_out(offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
        // SAFETY: filled, and only plain bytes are loaded.
        done.then(|| unsafe { value.assume_init() })
    }

    /// Puts bytes at an offset.
    #[inline(always)]
    fn store<T: Copy>(&self, offset: u32, value: &T) -> bool {
        // SAFETY: a whole value.
        unsafe { self.copy_in(offset, ptr::from_ref(value).cast(), size_of::<T>() as u32) }
    }
}

/// A socket buffer.
pub struct Buffer {
    pub skb: *mut __sk_buff,
}

impl Buffer {
    /// Whether the frame is addressed to this machine alone: a device may show others', too.
    #[inline(always)]
    pub fn is_for_us(&self) -> bool {
        /// `PACKET_HOST`.
        const HOST: u32 = 0;
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).pkt_type == HOST }
    }

    /// Bytes of data in each packet that this one was joined from; 0 for one that is what it is.
    #[inline(always)]
    pub fn segment_len(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).gso_size }
    }

    /// Whether the device shall complete the transport checksum, of whose segment only the sum of
    /// the pseudo header is there: then a helper that is told of changed bytes leaves it alone.
    #[inline(always)]
    pub fn is_partial(&self, offset: u32) -> Option<bool> {
        let before: [u8; 2] = self.load(offset)?;
        self.replace(offset, 1, 0);
        let after: [u8; 2] = self.load(offset)?;
        if before == after {
            return Some(true);
        }
        self.store(offset, &before).then_some(false)
    }

    #[inline(always)]
    fn replace(&self, offset: u32, difference: u32, flags: u64) -> bool {
        // SAFETY: the helper takes this hook's context; size 0 means that `to` is a difference.
        unsafe { bpf_l4_csum_replace(self.skb, offset, 0, u64::from(difference), flags) == 0 }
    }

    /// Lets a checksum follow a change of the bytes that it covers.
    #[inline(always)]
    pub fn follow_bytes(&self, offset: u32, difference: u32) -> bool {
        self.replace(offset, difference, 0)
    }

    /// Lets a checksum follow a change of the pseudo header.
    #[inline(always)]
    pub fn follow_addresses(&self, offset: u32, difference: u32, kind: ChecksumKind) -> bool {
        let flags = PSEUDO_HEADER | if kind.udp { ZERO_MEANS_NONE } else { 0 };
        // Kernels before 6.16 do not know the flag, and account for IPv6 as for IPv4.
        (kind.v6 && self.replace(offset, difference, flags | IS_V6))
            || self.replace(offset, difference, flags)
    }
}

impl Frame for Buffer {
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        // SAFETY: the context is valid for the length of the program.
        let tagged = unsafe { (*self.skb).vlan_present };
        // SAFETY: as above.
        let tag = unsafe { (*self.skb).vlan_tci };
        // Tag 0 only carries a priority; the kernel takes such a packet as its device's own.
        if tagged != 0 && tag & 0xfff != 0 {
            return None;
        }
        // SAFETY: the context is valid for the length of the program.
        let protocol = unsafe { (*self.skb).protocol };
        Some(u16::from_be(protocol as u16))
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid for the length of the program.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        self.segment_len() != 0
    }

    #[inline(always)]
    unsafe fn copy_out(&self, offset: u32, to: *mut c_void, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to, len) == 0 }
    }

    #[inline(always)]
    unsafe fn copy_in(&self, offset: u32, from: *const c_void, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_skb_store_bytes(self.skb, offset, from, len, 0) == 0 }
    }

    #[inline(always)]
    fn is_left_to_device(&self, offset: u32) -> bool {
        self.is_partial(offset) == Some(true)
    }

    #[inline(always)]
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool {
        let none = if kind.udp { ZERO_MEANS_NONE } else { 0 };
        (bytes == 0 || self.replace(offset, bytes, none))
            && self.follow_addresses(offset, addresses, kind)
    }
}

/// A frame as the driver received it.
pub struct Received {
    pub context: XdpContext,
}

impl Frame for Received {
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.ctx.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        // A tag in the frame is a type of its own, which nobody here serves.
        self.load::<[u8; 2]>(12).map(u16::from_be_bytes)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the helper takes this hook's context.
        unsafe { bpf_xdp_get_buff_len(self.context.ctx) as u32 }
    }

    #[inline(always)]
    fn is_joined(&self) -> bool {
        false
    }

    #[inline(always)]
    unsafe fn copy_out(&self, offset: u32, to: *mut c_void, len: u32) -> bool {
        // SAFETY: the caller's promise.
        unsafe { bpf_xdp_load_bytes(self.context.ctx, offset, to, len) == 0 }
    }

    #[inline(always)]
    unsafe fn copy_in(&self, offset: u32, from: *const c_void, len: u32) -> bool {
        // SAFETY: the caller's promise; the helper only reads.
        unsafe { bpf_xdp_store_bytes(self.context.ctx, offset, from.cast_mut(), len) == 0 }
    }

    #[inline(always)]
    fn is_left_to_device(&self, _offset: u32) -> bool {
        false
    }

    #[inline(always)]
    fn follow(&self, offset: u32, addresses: u32, bytes: u32, kind: ChecksumKind) -> bool {
        let Some(old) = self.load::<[u8; 2]>(offset) else { return false };
        if kind.udp && old == [0; 2] {
            return true;
        }
        let mut new = checksum::apply(old, checksum::join(addresses, bytes));
        if kind.udp && new == [0; 2] {
            new = [0xff; 2];
        }
        self.store(offset, &new)
    }
}
