//! Local disks of virtual servers with the least that boots: it says a word on the console and halts.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Result, io_error};

/// A system on a local disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// QEMU's `-drive` for it, without an id.
    drive: String,
}

impl Disk {
    /// A disk whose boot sector writes `word` to the first serial line.
    pub fn bios(dir: &Path, word: &str) -> Result<Self> {
        let file = dir.join("bios-disk.img");
        fs::write(&file, boot_sector(word)).map_err(io_error("write", &file))?;
        // SeaBIOS reads nothing from a disk of less than one cylinder.
        let image = fs::OpenOptions::new().write(true).open(&file);
        let sized = image.and_then(|image| image.set_len(16 << 20));
        sized.map_err(io_error("lengthen", &file))?;
        let drive = format!("format=raw,file={}", file.display());
        Ok(Self { drive })
    }

    /// A disk with `word` in an EFI application at the place where firmware looks for one.
    pub fn uefi(dir: &Path, word: &str) -> Result<Self> {
        let folder: PathBuf = dir.join("uefi-disk");
        let place = folder.join("EFI/BOOT");
        fs::create_dir_all(&place).map_err(io_error("create", &place))?;
        let file = place.join("BOOTX64.EFI");
        fs::write(&file, efi_application(word)).map_err(io_error("write", &file))?;
        // QEMU shows the folder as a disk with one FAT partition.
        let drive = format!("format=raw,file=fat:rw:{}", folder.display());
        Ok(Self { drive })
    }

    /// QEMU's arguments for it as the disk that follows the network in the boot order.
    pub fn arguments(&self) -> [String; 4] {
        [
            "-drive".to_owned(),
            format!("if=none,id=local,{}", self.drive),
            "-device".to_owned(),
            "ide-hd,drive=local,bootindex=1".to_owned(),
        ]
    }
}

/// 16-bit code at 0x7C00 that sends a text to the UART at 0x3F8 and halts.
fn boot_sector(word: &str) -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0xfc,             // cld
        0x31, 0xc0,       // xor ax, ax
        0x8e, 0xd8,       // mov ds, ax
        0xbe, 0x22, 0x7c, // mov si, text
        0xac,             // next: lodsb
        0x84, 0xc0,       // test al, al
        0x74, 0x12,       // jz end
        0x88, 0xc3,       // mov bl, al
        0xba, 0xfd, 0x03, // mov dx, line status
        0xec,             // wait: in al, dx
        0xa8, 0x20,       // test al, room
        0x74, 0xfb,       // jz wait
        0xba, 0xf8, 0x03, // mov dx, data
        0x88, 0xd8,       // mov al, bl
        0xee,             // out dx, al
        0xeb, 0xe9,       // jmp next
        0xf4,             // end: hlt
        0xeb, 0xfd,       // jmp end
    ];
    let mut sector = [&code[..], b"\r\n", word.as_bytes(), b"\r\n\0"].concat();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// A PE32+ image of one section: `ConOut->OutputString(text)`, then it halts (UEFI 2.10, 2.1.1 and 12.4).
fn efi_application(word: &str) -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0x48, 0x83, 0xec, 0x28,                   // sub rsp, 40
        0x48, 0x8b, 0x4a, 0x40,                   // mov rcx, [rdx + ConOut]
        0x48, 0x8d, 0x15, 0x06, 0x00, 0x00, 0x00, // lea rdx, [text]
        0xff, 0x51, 0x08,                         // call [rcx + OutputString]
        0xf4,                                     // hlt
        0xeb, 0xfd,                               // jmp back
    ];
    let text = format!("\r\n{word}\r\n\0");
    let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut section = [&code[..], &text].concat();
    section.resize(0x200, 0);
    let mut image = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let half = |value: u16| value.to_le_bytes();
    let full = |value: u32| value.to_le_bytes();
    put(0, b"MZ");
    put(0x3c, &full(0x40));
    put(0x40, b"PE\0\0");
    put(0x44, &half(0x8664)); // x64
    put(0x46, &half(1)); // sections
    put(0x54, &half(0xf0)); // size of what follows
    put(0x56, &half(0x22)); // executable, large addresses
    let optional = 0x58;
    put(optional, &half(0x20b)); // PE32+
    put(optional + 4, &full(0x200)); // code
    put(optional + 16, &full(0x1000)); // entry point
    put(optional + 20, &full(0x1000)); // base of code
    put(optional + 32, &full(0x1000)); // section alignment
    put(optional + 36, &full(0x200)); // file alignment
    put(optional + 56, &full(0x2000)); // image
    put(optional + 60, &full(0x200)); // headers
    put(optional + 68, &half(10)); // EFI application
    put(optional + 108, &full(16)); // directories, all empty
    let table = optional + 0xf0;
    put(table, b".text");
    put(table + 8, &full(0x200));
    put(table + 12, &full(0x1000));
    put(table + 16, &full(0x200));
    put(table + 20, &full(0x200));
    put(table + 36, &full(0x6000_0020)); // code, executable, readable
    [image, section].concat()
}
